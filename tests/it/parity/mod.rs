//! Parity with PyTorch: operations, optimizers, schedules, whole networks and training steps against recorded tensors.

mod schedules;
