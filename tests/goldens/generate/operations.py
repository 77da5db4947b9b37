"""Every differentiable operation in f64, forward and backward, over odd shapes: one file per operation.

Names within a case: `x` input, `w` weight, `y` output, `dy` the gradient that flows in, `dx`, `dw`, ... the
gradients that flow out. All gradients come from torch.autograd.
"""

import torch
import torch.nn.functional as F

from .golden import Golden, generator, normal, uniform

EPSILON, MOMENTUM = 1e-5, 0.1


def leaf(tensor):
    return tensor.clone().requires_grad_(True)


def backward(case, y, **leaves):
    """Sends a random gradient back from `y`; returns it with the gradient of every leaf, under d-names."""
    dy = normal(f"{case}.dy", *y.shape)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    return {"dy": dy, **{f"d{name}": gradient for name, gradient in zip(leaves, gradients)}}


# name: batch, height, width, input channels, output channels, kernel, stride, padding
CONVOLUTIONS = {
    "pointwise": (2, 7, 5, 3, 5, 1, 1, 0),
    "pointwise_stride2": (3, 7, 5, 4, 6, 1, 2, 0),
    "pointwise_stride3": (1, 10, 8, 5, 3, 1, 3, 0),
    "pointwise_padded": (1, 4, 3, 2, 3, 1, 1, 1),
    "same": (2, 7, 5, 3, 5, 3, 1, 1),
    "valid": (2, 7, 5, 3, 5, 3, 1, 0),
    "stride2": (2, 7, 5, 6, 9, 3, 2, 1),
    "stride2_even": (3, 8, 6, 4, 8, 3, 2, 1),
    "stride2_valid": (2, 8, 7, 3, 4, 3, 2, 0),
    "stride3": (2, 11, 8, 3, 5, 3, 3, 1),
    "stride3_valid": (1, 9, 13, 2, 7, 3, 3, 0),
    "wide_padding": (1, 3, 2, 2, 3, 3, 1, 3),
    "seven_same": (2, 9, 7, 3, 4, 7, 1, 3),
    "seven_stem": (2, 17, 15, 3, 6, 7, 2, 3),
    "seven_stride3": (1, 15, 11, 2, 3, 7, 3, 1),
    "seven_single_output": (1, 7, 7, 2, 3, 7, 1, 0),
    "cifar_stem": (1, 8, 8, 3, 16, 3, 1, 1),
    "one_pixel": (5, 1, 1, 9, 17, 3, 1, 1),
    "one_channel": (3, 6, 5, 1, 1, 3, 1, 1),
    "channels_past_a_vector": (1, 5, 3, 33, 35, 1, 1, 0),
}


def convolution():
    golden = Golden()
    for case, (n, h, width, cin, cout, kernel, stride, padding) in CONVOLUTIONS.items():
        x = leaf(normal(f"conv.{case}.x", n, cin, h, width))
        w = leaf(normal(f"conv.{case}.w", cout, cin, kernel, kernel))
        y = F.conv2d(x, w, stride=stride, padding=padding)
        golden.add(case, x=x, w=w, stride=stride, padding=padding, y=y, **backward(f"conv.{case}", y, x=x, w=w))
    return golden


# name: shape, mean, standard deviation of the input
BATCH_NORMS = {
    "odd": ((2, 3, 7, 5), 0.0, 1.0),
    "offset": ((4, 5, 3, 3), 100.0, 0.5),
    "one_channel": ((3, 1, 1, 9), -2.0, 3.0),
    "one_pixel": ((6, 19, 1, 1), 0.5, 1.0),
    "two_values": ((2, 4, 1, 1), 0.0, 1.0),
    "small_variance": ((3, 7, 4, 3), 1.0, 1e-3),
    "wide": ((2, 33, 2, 3), 0.0, 2.0),
}


def batch_norm_parameters(case, channels):
    return (
        leaf(uniform(f"{case}.gamma", 0.5, 1.5, channels)),
        leaf(normal(f"{case}.beta", channels)),
        normal(f"{case}.running_mean", channels),
        uniform(f"{case}.running_variance", 0.2, 2.0, channels),
    )


def batch_norm(training):
    golden = Golden()
    for case, (shape, mean, deviation) in BATCH_NORMS.items():
        name = f"batch_norm.{training}.{case}"
        x = leaf(mean + deviation * normal(f"{name}.x", *shape))
        gamma, beta, running_mean, running_variance = batch_norm_parameters(name, shape[1])
        golden.add(case, x=x, gamma=gamma, beta=beta, epsilon=EPSILON, momentum=MOMENTUM)
        golden.add(case, running_mean=running_mean, running_variance=running_variance)
        y = F.batch_norm(x, running_mean, running_variance, gamma, beta, training, MOMENTUM, EPSILON)
        golden.add(case, y=y, **backward(name, y, x=x, gamma=gamma, beta=beta))
        if training:
            golden.add(case, running_mean_after=running_mean, running_variance_after=running_variance)
    return golden


# name: batch, height, width, input channels, output channels, kernel, stride, padding, with residual, with relu
FUSED = {
    "conv_bn": (2, 5, 7, 3, 4, 1, 1, 0, False, False),
    "conv_bn_relu": (2, 7, 5, 3, 5, 3, 1, 1, False, True),
    "conv_bn_relu_strided": (3, 9, 6, 4, 7, 3, 2, 1, False, True),
    "conv_bn_residual_relu": (2, 5, 6, 5, 5, 3, 1, 1, True, True),
    "conv_bn_residual_relu_pointwise": (2, 4, 3, 6, 17, 1, 1, 0, True, True),
    "stem": (2, 13, 11, 3, 6, 7, 2, 3, False, True),
}


def fused_convolution():
    """Convolution, train-mode batch norm, optional residual, optional ReLU, as one node."""
    golden = Golden()
    for case, (n, h, width, cin, cout, kernel, stride, padding, with_residual, with_relu) in FUSED.items():
        name = f"fused.{case}"
        x = leaf(normal(f"{name}.x", n, cin, h, width))
        w = leaf(normal(f"{name}.w", cout, cin, kernel, kernel))
        gamma, beta, running_mean, running_variance = batch_norm_parameters(name, cout)
        golden.add(case, x=x, w=w, stride=stride, padding=padding, gamma=gamma, beta=beta, epsilon=EPSILON)
        golden.add(case, momentum=MOMENTUM, running_mean=running_mean, running_variance=running_variance)
        golden.add(case, relu=int(with_relu))
        leaves = dict(x=x, w=w, gamma=gamma, beta=beta)
        y = F.conv2d(x, w, stride=stride, padding=padding)
        y = F.batch_norm(y, running_mean, running_variance, gamma, beta, True, MOMENTUM, EPSILON)
        if with_residual:
            leaves["residual"] = leaf(normal(f"{name}.residual", *y.shape))
            golden.add(case, residual=leaves["residual"])
            y = y + leaves["residual"]
        if with_relu:
            y = F.relu(y)
        golden.add(case, y=y, **backward(name, y, **leaves))
        golden.add(case, running_mean_after=running_mean, running_variance_after=running_variance)
    return golden


def elementwise():
    """ReLU (with exact zeros, where the gradient is 0) and addition, with and without a ReLU after it."""
    golden = Golden()
    for case, shape in {"odd": (2, 3, 7, 5), "one": (1, 1, 1, 1), "wide": (1, 37, 3, 1)}.items():
        x = normal(f"relu.{case}.x", *shape)
        x.view(-1)[::5] = 0.0
        x = leaf(x)
        y = F.relu(x)
        golden.add(f"relu_{case}", x=x, y=y, **backward(f"relu.{case}", y, x=x))

        a, b = leaf(normal(f"add.{case}.a", *shape)), leaf(normal(f"add.{case}.b", *shape))
        y = a + b
        golden.add(f"add_{case}", a=a, b=b, y=y, **backward(f"add.{case}", y, a=a, b=b))
        y = F.relu(a + b)
        golden.add(f"add_relu_{case}", a=a, b=b, y=y, **backward(f"add_relu.{case}", y, a=a, b=b))
    return golden


# name: shape, kernel, stride, padding
POOLS = {
    "odd": ((2, 3, 7, 5), 3, 2, 1),
    "even": ((2, 5, 8, 6), 3, 2, 1),
    "one_pixel": ((2, 3, 1, 1), 3, 2, 1),
    "one_row": ((1, 9, 1, 11), 3, 2, 1),
    "two": ((1, 4, 6, 5), 2, 2, 0),
    "overlapping": ((1, 2, 5, 6), 3, 1, 1),
}


def max_pool():
    """Random values, all negative values (padding must not win), and ties: the first of a window, in row order,
    takes the gradient."""
    golden = Golden()
    for case, (shape, kernel, stride, padding) in POOLS.items():
        name = f"max_pool.{case}"
        inputs = {
            case: normal(f"{name}.x", *shape),
            f"{case}_negative": -1.0 - normal(f"{name}.negative", *shape).abs(),
            f"{case}_ties": torch.randint(0, 2, shape, generator=generator(f"{name}.ties")).double(),
        }
        for variant, x in inputs.items():
            x = leaf(x)
            y = F.max_pool2d(x, kernel, stride, padding)
            golden.add(variant, x=x, kernel=kernel, stride=stride, padding=padding, y=y)
            golden.add(variant, **backward(f"max_pool.{variant}", y, x=x))
    return golden


def global_average_pool():
    golden = Golden()
    for case, shape in {"odd": (2, 3, 7, 5), "one_pixel": (3, 17, 1, 1), "wide": (1, 35, 4, 4)}.items():
        x = leaf(normal(f"average_pool.{case}.x", *shape))
        y = F.adaptive_avg_pool2d(x, 1).flatten(1)
        golden.add(case, x=x, y=y, **backward(f"average_pool.{case}", y, x=x))
    return golden


def linear():
    golden = Golden()
    for case, (n, features, classes) in {"odd": (5, 7, 3), "one": (1, 1, 1), "wide": (3, 35, 33)}.items():
        x = leaf(normal(f"linear.{case}.x", n, features))
        w = leaf(normal(f"linear.{case}.w", classes, features))
        b = leaf(normal(f"linear.{case}.b", classes))
        y = F.linear(x, w, b)
        golden.add(case, x=x, w=w, b=b, y=y, **backward(f"linear.{case}", y, x=x, w=w, b=b))
    return golden


def cross_entropy():
    """Mean over the batch, label smoothing 0 and 0.1; `huge` has logits whose exponentials overflow."""
    golden = Golden()
    cases = {"odd": (5, 7, 3.0), "one_sample": (1, 10, 1.0), "two_classes": (9, 2, 2.0), "huge": (4, 11, 1000.0)}
    for case, (n, classes, scale) in cases.items():
        labels = torch.randint(0, classes, (n,), generator=generator(f"cross_entropy.{case}.labels"))
        for suffix, smoothing in (("", 0.0), ("_smoothed", 0.1)):
            logits = leaf(scale * normal(f"cross_entropy.{case}.logits", n, classes))
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            (gradient,) = torch.autograd.grad(loss, logits)
            golden.add(case + suffix, logits=logits, labels=labels, label_smoothing=smoothing)
            golden.add(case + suffix, loss=loss, dlogits=gradient)
    return golden


def make(folder):
    families = {
        "conv2d": convolution(),
        "batch_norm_train": batch_norm(True),
        "batch_norm_eval": batch_norm(False),
        "fused_convolution": fused_convolution(),
        "elementwise": elementwise(),
        "max_pool": max_pool(),
        "global_average_pool": global_average_pool(),
        "linear": linear(),
        "cross_entropy": cross_entropy(),
    }
    for name, golden in families.items():
        golden.save(folder / f"{name}.safetensors")
