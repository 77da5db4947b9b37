"""Trainings on two levels of classes, from images to trained tensors, in f64.

    levels/data.safetensors      `images` (N, 3, 16, 16, values 0 to 255), `subclasses` (N)
    levels/NAME.safetensors      `initial.NAME`, `teacher.NAME` (f32), then what PyTorch makes of them: `losses` (a step's
                                 whole loss), `final.NAME`

The data has subclasses 0 to 6: 0, 1 and 2 of superclass 0, 3 and 4 of superclass 1, 5 of superclass 2, and 6, which is `novel`,
of superclass 3, `novel` as well. Subclass 1 has no images: it was held out. The network's classes are those with images, in
ascending order. Batches of five images in file order, so the last one of an epoch is short; a small ResNet-20 with
option-A shortcuts, the last γ of each block at 0.2 (see trajectories.py).
"""

import torch
import torch.nn.functional as F
from torch import nn

from .golden import Golden, generator, uniform
from .resnet import ResNet

PARENTS = [0, 0, 0, 1, 1, 2, 3]
SUPERCLASSES, SUBCLASSES, NOVEL = [0, 1, 2, 3], [0, 2, 3, 4, 5, 6], 6
LABELS = [0, 6, 3, 2, 6, 5, 4, 6, 0, 3, 6, 2]
WIDTH, SIDE, BATCH, EPOCHS = 2, 16, 5, 2
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Cosine(nn.Module):
    """Cosines times a scale: softplus of the parameter, or the parameter itself."""

    def __init__(self, features, classes, softplus):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.xavier_uniform_(self.weight)
        scale = torch.tensor(30.0, dtype=torch.float64)
        self.scale = nn.Parameter((torch.log(torch.expm1(scale)) if softplus else scale).float())
        self.softplus = softplus

    def forward(self, x):
        scale = F.softplus(self.scale) if self.softplus else self.scale
        return scale * F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))


def head(kind, features, classes):
    if kind == "linear":
        return nn.Linear(features, classes)
    if kind == "cosine":
        return Cosine(features, classes, softplus=True)
    return nn.Sequential(Cosine(features, classes, softplus=False), nn.ReLU(), nn.Linear(classes, classes))


class Network(nn.Module):
    """A backbone with named heads."""

    def __init__(self, seed, heads):
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = ResNet(20, WIDTH, option="a")
        self.backbone.set_last_gamma(0.2)
        features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        for name, (kind, classes) in heads.items():
            setattr(self, name, head(kind, features, classes))
        self.names = list(heads)

    def forward(self, x):
        features = self.backbone(x)
        return [getattr(self, name)(features) for name in self.names]

    def tensors(self):
        state = {name.removeprefix("backbone."): value for name, value in self.state_dict().items()}
        return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def seasoned(network):
    """Running statistics and normalisations away from their start, as in a network that was trained."""
    with torch.no_grad():
        for name, module in network.backbone.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                channels = module.num_features
                module.weight.mul_(uniform(f"levels.{name}.weight", 0.7, 1.3, channels, dtype=torch.float32))
                module.bias.copy_(uniform(f"levels.{name}.bias", -0.2, 0.2, channels, dtype=torch.float32))
                module.running_mean.copy_(uniform(f"levels.{name}.mean", -0.5, 0.5, channels, dtype=torch.float32))
                module.running_var.copy_(uniform(f"levels.{name}.var", 0.5, 1.5, channels, dtype=torch.float32))
    return network


def data():
    random = generator("levels.images")
    labels = torch.tensor(LABELS)
    images = 0.8 * torch.rand(len(LABELS), 3, SIDE, SIDE, generator=random) + 0.03 * labels.view(-1, 1, 1, 1)
    return (255 * images).to(torch.uint8), labels


def normalised(images):
    """What a network sees, computed in f32 as torchvision does."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return ((images.float() / 255 - mean) / deviation).double()


def summed_up(logits, classes, superclasses, temperature):
    """log of the softmax of subclass logits, summed up to superclasses; classes of no superclass in the list are left out."""
    columns = [[i for i, c in enumerate(classes) if PARENTS[c] == s] for s in superclasses]
    sums = torch.stack([torch.logsumexp(logits[:, own] / temperature, dim=1) for own in columns], dim=1)
    return F.log_softmax(sums, dim=1)


def kl(p, q):
    """KL(p, q) per sample from log-probabilities."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(dim=1)


def balanced(labels):
    counts = torch.bincount(labels).double()
    return len(labels) / (len(counts) * counts)


class Scenario:
    """What a training adds to the cross-entropies of its heads; the defaults add nothing."""

    heads = {"fc": ("linear", len(SUBCLASSES))}
    levels = ("sub",)
    outliers = "extra-class"
    weights = False
    frozen = False
    rates = (1e-3, 1e-3)
    epochs = EPOCHS

    def optimizer(self, groups):
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=5e-4)

    def coupling(self, superclass, subclass, classes):
        return None

    def teacher(self):
        return None


class Coupled(Scenario):
    """Two heads, a cosine one among them, both of which learn from the divergence; balanced weights, two rates."""

    heads = {"super_head": ("linear", 4), "sub_head": ("cosine", 6)}
    levels = ("super", "sub")
    weights = True
    rates = (1e-3, 1e-2)

    def optimizer(self, groups):
        return torch.optim.Adam(groups, weight_decay=1e-1)

    def coupling(self, superclass, subclass, classes):
        return 0.3, kl(summed_up(subclass, classes, SUPERCLASSES, 1.5), F.log_softmax(superclass / 1.5, dim=1))


class Uniform(Scenario):
    """Outliers are no class; the subclass head is taken as given in the divergence."""

    heads = {"super_head": ("cosine-relu-linear", 3), "sub_head": ("linear", 5)}
    levels = ("super", "sub")
    outliers = "uniform"

    def coupling(self, superclass, subclass, classes):
        given = summed_up(subclass, classes, SUPERCLASSES[:3], 1.0).detach()
        return 0.5, kl(F.log_softmax(superclass, dim=1), given)


class Energy(Scenario):
    """Margins for the energy of one head."""

    heads = {"fc": ("linear", 5)}
    outliers = "energy"
    weight, margins = 0.1, (-3.0, -1.5)


class Taught(Scenario):
    """A subclass model that follows a superclass model, which does not know `novel`."""

    heads = {"fc": ("cosine-relu-linear", 6)}

    def teacher(self):
        return seasoned(Network(5, {"fc": ("linear", 3)}))


class Frozen(Scenario):
    """Only the heads of a trained network learn: one step of plain SGD at rate 1, so that what moves is the gradient."""

    heads = {"super_head": ("cosine", 4), "sub_head": ("cosine-relu-linear", 6)}
    levels = ("super", "sub")
    frozen = True
    rates = (1.0, 1.0)

    def optimizer(self, groups):
        return torch.optim.SGD([{"params": group["params"], "lr": 1.0} for group in groups])


SCENARIOS = {"coupled": Coupled, "uniform": Uniform, "energy": Energy, "taught": Taught, "frozen": Frozen}


def groups_of(network, scenario):
    """Backbone, heads, and the scales of cosine heads, which are not decayed."""
    named = list(network.named_parameters())
    scales = {f"{name}.scale" for name, (kind, _) in scenario.heads.items() if kind == "cosine"}
    backbone = [p for name, p in named if name.startswith("backbone.")]
    heads = [p for name, p in named if not name.startswith("backbone.") and name not in scales]
    undecayed = [p for name, p in named if name in scales]
    rate, head_rate = scenario.rates
    groups = [] if scenario.frozen else [{"params": backbone, "lr": rate}]
    groups.append({"params": heads, "lr": head_rate})
    if undecayed:
        groups.append({"params": undecayed, "lr": head_rate, "weight_decay": 0.0})
    return groups


def terms_of(network, teacher, scenario, x, labels):
    """(name, coefficient, value of each sample, its weight) of each term; a term is the weighted mean."""
    is_class = torch.ones_like(labels, dtype=torch.bool)
    classes = SUBCLASSES
    if scenario.outliers != "extra-class":
        is_class, classes = labels != NOVEL, [c for c in SUBCLASSES if c != NOVEL]
    parents = torch.tensor(PARENTS)[labels]
    superclasses = SUPERCLASSES if scenario.outliers == "extra-class" else SUPERCLASSES[:3]
    all_labels = torch.tensor(LABELS)
    logits = dict(zip(scenario.levels, network(x)))
    inside = is_class.double()
    for level, values in logits.items():
        numbers = superclasses if level == "super" else classes
        own = parents if level == "super" else labels
        target = torch.tensor([numbers.index(n) if n in numbers else 0 for n in own.tolist()])
        weight = inside
        if scenario.weights:
            known = torch.tensor(PARENTS)[all_labels] if level == "super" else all_labels
            weight = balanced(torch.tensor([numbers.index(n) for n in known.tolist()]))[target]
        yield f"{level}_cross_entropy", 1.0, F.cross_entropy(values, target, reduction="none"), weight
    for level, values in logits.items():
        outside = 1.0 - inside
        if scenario.outliers == "uniform":
            yield f"{level}_outliers", 0.5, -F.log_softmax(values, dim=1).mean(dim=1), outside
        if scenario.outliers == "energy":
            energy, (low, high) = -torch.logsumexp(values, dim=1), scenario.margins
            yield f"{level}_inside", scenario.weight, F.relu(energy - low) ** 2, inside
            yield f"{level}_outside", scenario.weight, F.relu(high - energy) ** 2, outside
    coupling = len(logits) == 2 and scenario.coupling(logits["super"], logits["sub"], classes)
    if coupling:
        yield "coupling", *coupling, inside
    if teacher is not None:
        with torch.no_grad():
            given = F.log_softmax(teacher(x)[0] / 2.0, dim=1)
        known = (parents != 3).double()
        yield "teacher", 0.7, kl(given, summed_up(logits["sub"], classes, SUPERCLASSES[:3], 2.0)), known


def train(scenario, images, labels):
    golden = Golden()
    network = Network(3, scenario.heads)
    if scenario.frozen:
        network = seasoned(network)
    teacher = scenario.teacher()
    for name, value in network.tensors().items():
        golden.put(f"initial.{name}", value)
    if teacher is not None:
        for name, value in teacher.tensors().items():
            golden.put(f"teacher.{name}", value)
        teacher = teacher.double().eval()
    network = network.double().train()
    if scenario.frozen:
        network.backbone.eval()
    optimizer = scenario.optimizer(groups_of(network, scenario))
    x, losses = normalised(images), []
    batches = [slice(start, start + BATCH) for start in range(0, len(labels), BATCH)]
    for _ in range(scenario.epochs):
        for batch in batches[:1] if scenario.frozen else batches:
            loss = torch.zeros((), dtype=torch.float64)
            for _, coefficient, values, weight in terms_of(network, teacher, scenario, x[batch], labels[batch]):
                if weight.sum() > 0:
                    loss = loss + coefficient * (values * weight).sum() / weight.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if scenario.frozen:
            break
    golden.put("losses", torch.tensor(losses, dtype=torch.float64))
    for name, value in network.tensors().items():
        golden.put(f"final.{name}", value)
    return golden


def make(folder):
    images, labels = data()
    golden = Golden()
    golden.put("images", images.float())
    golden.put("subclasses", labels)
    golden.save(folder / "data.safetensors")
    for name, scenario in SCENARIOS.items():
        train(scenario(), images, labels).save(folder / f"{name}.safetensors")
