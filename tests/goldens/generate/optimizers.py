"""Optimizers on small f64 tensors with given gradients, and learning rates of schedules.

optimizers/steps.safetensors, per case: `start` (the parameter), `gradients` (steps, then the parameter's shape),
`parameters` (after each step), and the settings as scalars. optimizers/schedules.safetensors, per case: settings
and `rates`, the learning rate used in each epoch, or in each step where the case says `per_step`.
"""

import torch
from torch.optim import lr_scheduler

from .golden import Golden, normal

STEPS, SHAPE = 7, (3, 5)

SGD = {
    "sgd_plain": dict(lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False),
    "sgd_decay": dict(lr=0.1, momentum=0.0, weight_decay=5e-2, nesterov=False),
    "sgd_momentum": dict(lr=0.05, momentum=0.9, weight_decay=0.0, nesterov=False),
    "sgd_momentum_decay": dict(lr=0.05, momentum=0.9, weight_decay=5e-2, nesterov=False),
    "sgd_nesterov": dict(lr=0.05, momentum=0.9, weight_decay=0.0, nesterov=True),
    "sgd_nesterov_decay": dict(lr=0.05, momentum=0.8, weight_decay=5e-2, nesterov=True),
}
ADAM = {
    "adam": (torch.optim.Adam, dict(lr=0.01, weight_decay=0.0)),
    "adam_l2": (torch.optim.Adam, dict(lr=0.01, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1)),
    "adamw_no_decay": (torch.optim.AdamW, dict(lr=0.03, weight_decay=0.0)),
}
BETAS, EPSILON = (0.9, 0.999), 1e-8


def run(case, make_optimizer):
    """Steps through the case's gradients, the learning rate halved after step 4 as a schedule would."""
    start, gradients = normal(f"{case}.start", *SHAPE), normal(f"{case}.gradients", STEPS, *SHAPE)
    # A gradient of exactly zero must not divide by zero, and tiny ones show where epsilon is added.
    gradients[:, 0, 0] = 0.0
    gradients[:, 0, 1] *= 1e-7
    parameter = torch.nn.Parameter(start.clone())
    optimizer = make_optimizer([parameter])
    rates, after = [], []
    for step in range(STEPS):
        if step == 4:
            optimizer.param_groups[0]["lr"] *= 0.5
        parameter.grad = gradients[step].clone()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        after.append(parameter.detach().clone())
    return dict(start=start, gradients=gradients, rates=torch.tensor(rates, dtype=torch.float64),
                parameters=torch.stack(after))


def steps():
    golden = Golden()
    for case, settings in SGD.items():
        golden.add(case, **run(case, lambda parameters: torch.optim.SGD(parameters, **settings)))
        golden.add(case, momentum=settings["momentum"], weight_decay=settings["weight_decay"])
        golden.add(case, nesterov=int(settings["nesterov"]))
    for case, (kind, settings) in ADAM.items():
        make = lambda parameters: kind(parameters, betas=BETAS, eps=EPSILON, **settings)  # noqa: E731
        golden.add(case, **run(case, make))
        golden.add(case, weight_decay=settings["weight_decay"], beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON)
    return golden


def rates(rate, count, make_scheduler):
    """The learning rate in force at each of `count` epochs (or steps)."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate, momentum=0.9)
    scheduler = make_scheduler(optimizer)
    found, momenta = [], []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    return torch.tensor(found, dtype=torch.float64), torch.tensor(momenta, dtype=torch.float64)


def schedules():
    golden = Golden()
    for epochs in (1, 2, 10, 37):
        found, _ = rates(0.1, epochs, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=epochs))
        golden.add(f"cosine_{epochs}", rate=0.1, epochs=epochs, rates=found)
    milestones = [3, 6, 8]
    found, _ = rates(0.1, 10, lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma=0.1))
    golden.add("multistep", rate=0.1, epochs=10, milestones=torch.tensor(milestones), gamma=0.1, rates=found)

    # PyTorch's defaults: cosine, 30 % rising, from rate / 25 to rate / 25 / 10,000.
    for total in (10, 33, 100):
        found, _ = rates(0.1, total, lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=0.1, total_steps=total, cycle_momentum=False))
        golden.add(f"onecycle_{total}", rate=0.1, per_step=1, total_steps=total, rates=found)
    found, momenta = rates(0.1, 40, lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=40))
    golden.add("onecycle_momentum", rate=0.1, per_step=1, total_steps=40, rates=found, momenta=momenta)

    # Warm-up: epoch e of w runs at rate * (e + 1) / w, then the cosine over the remaining epochs begins at its top.
    for warmup, epochs in ((1, 4), (3, 10), (5, 37)):
        def warm(optimizer, warmup=warmup, epochs=epochs):
            rise = lr_scheduler.LambdaLR(optimizer, lambda epoch: (epoch + 1) / warmup)
            fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs - warmup)
            return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[warmup])
        found, _ = rates(0.1, epochs, warm)
        golden.add(f"warmup{warmup}_cosine_{epochs}", rate=0.1, warmup=warmup, epochs=epochs, rates=found)
    return golden


def make(folder):
    steps().save(folder / "steps.safetensors")
    schedules().save(folder / "schedules.safetensors")
