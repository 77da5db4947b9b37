//! Flags of every verb.

use clap::Args;

use crate::instructions::Instructions;
use crate::threads;
use crate::values::Wholes;

/// Flags that every verb understands.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Number of CPU threads, at most 16 for each core; 0 takes all that the machine, the scheduler and the container allow
    #[arg(long, value_parser = Wholes::<usize>::ANY, global = true, default_value_t = 0, value_name = "N", help_heading = "Common options")]
    pub threads: usize,
    /// Who decided the number of threads.
    #[arg(skip)]
    pub threads_by: Option<threads::Reason>,
    /// Use no wider vector instructions than these on the CPU: avx512, avx2 or baseline [default: the widest that the processor
    /// has]. Trainings have the same bits with avx512 and avx2; baseline has no fused multiply-add and rounds otherwise. Matrix
    /// products of linear layers and of scores take the widest in any case
    #[arg(long, global = true, value_name = "SET", help_heading = "Common options")]
    pub instructions: Option<Instructions>,
    /// Print results and errors only, no progress
    #[arg(long, global = true, help_heading = "Common options")]
    pub quiet: bool,
    /// Print the result as JSON on standard output
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
}
