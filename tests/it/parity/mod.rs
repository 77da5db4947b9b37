//! Parity with PyTorch: operations, optimizers, schedules, whole networks and training steps against recorded tensors.

mod command_line;
mod golden;
mod heads;
mod levels;
mod losses;
mod networks;
mod operations;
mod optimizers;
mod rig;
mod schedules;
mod trajectories;
mod weights;
