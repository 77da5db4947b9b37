"""Twenty training steps of narrow networks in f32, and what rounding alone does to them.

    trajectories/data/data_batch_{1..5}.bin, test_batch.bin   synthetic images in CIFAR-10's binary format
    trajectories/resnet{18,50}_init.{pth,safetensors}         the initial weights, twice
    trajectories/resnet{18,50}_{sgd,adam}.safetensors         `loss_f32`, `loss_f64` per step, `final.NAME` (f32)

Twenty images in batches of eight: every epoch has the batches 8, 8, 4 in file order, and twenty steps end in the
seventh epoch. The mean loss of a step is over its own batch. Preprocessing: x/255, then the `cifar10` normalisation.

Train-mode batch norm amplifies rounding, and an activation within rounding of zero flips a whole path of the
gradient. So the last γ of each block starts at 0.2, which keeps the residual branches small, and the images are
full of contrast: smooth ones leave batch norms with a variance far below their mean, and ResNet-50 on such images
moves its own loss by 4e-3 when its weights move by 1e-7. `moved` says how far the weights went, `rounding` how far
PyTorch's f32 ends from its own f64, from itself with two threads, and from itself after the initial weights were
shaken by about one rounding (the worst of three): a tolerance means nothing without these.
"""

import copy

import torch
import torch.nn.functional as F

from .golden import Golden, generator, normal
from .resnet import ResNet, verify

# Chosen, as the images are: with it PyTorch agrees with itself (other precision, other thread count, shaken weights) far
# better than the tolerance. With other seeds the narrow ResNet-50 amplifies rounding in every implementation alike.
SEED = 0
WIDTH = {18: 3, 50: 2}
BATCH, STEPS, IMAGES_PER_FILE, FILES, CLASSES = 8, 20, 4, 5, 10
LAST_GAMMA = 0.2
SHAKE = 1e-7
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SGD_LEARNING_RATE = {18: 1e-3, 50: 1e-4}
ADAM_LEARNING_RATE = 1e-4


def initial_network(depth):
    """PyTorch's default initialisation from a fixed seed, f32, with the last γ of each block set."""
    torch.manual_seed(SEED)
    network = ResNet(depth, WIDTH[depth], classes=CLASSES)
    network.set_last_gamma(LAST_GAMMA)
    return network


def synthetic_images(name, count):
    """Labels, and images of 3x32x32 bytes: noise around a brightness that grows with the class."""
    random = generator(name)
    labels = torch.randint(0, CLASSES, (count,), generator=random)
    images = torch.rand(count, 3, 32, 32, generator=random)
    images = 0.9 * images + 0.01 * labels.view(-1, 1, 1, 1)
    return labels, (255 * images).to(torch.uint8)


def write_records(path, labels, images):
    """CIFAR-10's binary format: a label byte, then the red, green and blue plane, per image."""
    records = torch.cat([labels.to(torch.uint8).view(-1, 1), images.flatten(1)], dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(records.numpy().tobytes())


def normalized(images, dtype):
    mean = torch.tensor(MEAN, dtype=dtype).view(1, 3, 1, 1)
    deviation = torch.tensor(DEVIATION, dtype=dtype).view(1, 3, 1, 1)
    return (images.to(dtype) / 255 - mean) / deviation


def make_optimizer(kind, depth, parameters):
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=SGD_LEARNING_RATE[depth], momentum=0.9, weight_decay=5e-4)
    return torch.optim.Adam(parameters, lr=ADAM_LEARNING_RATE, weight_decay=1e-4)


def train(depth, kind, labels, images, dtype=torch.float32, shake=0):
    """Trains for STEPS steps; returns the loss of each and the final state."""
    network = initial_network(depth).to(dtype).train()
    if shake:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                noise = normal(f"shake.{shake}.{name}", *parameter.shape, dtype=dtype)
                parameter.mul_(1 + SHAKE * noise)
    optimizer = make_optimizer(kind, depth, network.parameters())
    x = normalized(images, dtype)
    losses, start = [], 0
    for _ in range(STEPS):
        batch = slice(start, start + BATCH)
        loss = F.cross_entropy(network(x[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        start = start + BATCH if start + BATCH < len(labels) else 0
    return torch.tensor(losses, dtype=torch.float64), copy.deepcopy(network.state_dict())


def differences(a, b):
    """Largest relative difference of a step's loss, and of a tensor of two or more dimensions."""
    losses = ((a[0] - b[0]).abs() / b[0]).max().item()
    tensors = max(
        ((a[1][name].double() - value.double()).norm() / value.double().norm()).item()
        for name, value in b[1].items()
        if value.dim() >= 2
    )
    return {"loss": float(f"{losses:.1e}"), "tensor": float(f"{tensors:.1e}")}


def rounding(depth, kind, labels, images, single, double):
    """How far PyTorch is from itself, in three ways."""
    torch.set_num_threads(2)
    threaded = train(depth, kind, labels, images)
    torch.set_num_threads(1)
    shaken = [differences(train(depth, kind, labels, images, shake=shake), single) for shake in (1, 2, 3)]
    return {
        "f32_from_f64": differences(single, double),
        "two_threads": differences(threaded, single),
        "shaken": {key: max(one[key] for one in shaken) for key in ("loss", "tensor")},
    }


def make(folder):
    verify()
    labels, images = synthetic_images("trajectory.train", FILES * IMAGES_PER_FILE)
    for index in range(FILES):
        part = slice(index * IMAGES_PER_FILE, (index + 1) * IMAGES_PER_FILE)
        write_records(folder / "data" / f"data_batch_{index + 1}.bin", labels[part], images[part])
    write_records(folder / "data" / "test_batch.bin", *synthetic_images("trajectory.test", IMAGES_PER_FILE))

    for depth in (18, 50):
        initial = initial_network(depth).state_dict()
        torch.save(initial, folder / f"resnet{depth}_init.pth")
        golden = Golden()
        for name, value in initial.items():
            golden.put(name, value)
        golden.save(folder / f"resnet{depth}_init.safetensors", width=WIDTH[depth], last_gamma=LAST_GAMMA)

        for kind in ("sgd", "adam"):
            single = train(depth, kind, labels, images)
            double = train(depth, kind, labels, images, torch.float64)
            notes = {
                "width": WIDTH[depth],
                "moved": differences(single, (single[0], initial))["tensor"],
                "rounding": rounding(depth, kind, labels, images, single, double),
            }
            print(f"  resnet{depth} {kind}: loss {single[0][0]:.4f} to {single[0][-1]:.4f}, {notes}")
            golden = Golden()
            golden.put("loss_f32", single[0])
            golden.put("loss_f64", double[0])
            for name, value in single[1].items():
                golden.put(f"final.{name}", value)
            golden.save(folder / f"resnet{depth}_{kind}.safetensors", **notes)
