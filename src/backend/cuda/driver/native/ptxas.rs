//! The assembler's report on each kernel: registers, spills, shared memory, warnings.

/// One kernel in a compiler's log (`--ptxas-options=-v`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// The kernel's name.
    pub entry: String,
    /// Registers a thread uses.
    pub registers: u32,
    /// Bytes of local memory a thread uses.
    pub stack: u32,
    /// Bytes of registers written to local memory for want of registers.
    pub spill_stores: u32,
    /// Bytes of registers read back.
    pub spill_loads: u32,
    /// Bytes of static shared memory a block uses.
    pub shared: u32,
}

/// The kernels in a log.
pub fn resources(log: &str) -> Vec<Resources> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in log.lines().filter(|line| line.starts_with("ptxas")) {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let entry = rest.split('\'').next().unwrap_or_default().to_string();
            kernels.push(Resources { entry, ..Resources::default() });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        for (unit, place) in [
            (" bytes stack frame", &mut kernel.stack),
            (" bytes spill stores", &mut kernel.spill_stores),
            (" bytes spill loads", &mut kernel.spill_loads),
            (" registers", &mut kernel.registers),
            (" bytes smem", &mut kernel.shared),
        ] {
            if let Some(number) = number_before(line, unit) {
                *place = number;
            }
        }
    }
    kernels
}

/// Lines in which the assembler warns: `ptxas warning`, and every remark with a number C75xx (matrix instructions that
/// were serialised).
pub fn warnings(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.starts_with("ptxas") && (line.contains("warning") || line.contains("(C75")))
        .collect()
}

fn number_before(line: &str, unit: &str) -> Option<u32> {
    line[..line.find(unit)?].rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
kernels/a.cu(2): warning #177-D: variable \"s\" was declared but never referenced

ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90a'
ptxas info    : Function properties for first
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 0 barriers
ptxas info    : Compiling entry function 'second' for 'sm_90a'
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas info    : Function properties for second
ptxas         .     64 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 64 bytes cumulative stack size, 8192 bytes smem, 376 bytes cmem[0]
ptxas warning : Registers are spilled to local memory in function 'second'
";

    #[test]
    fn a_log_tells_what_each_kernel_uses() {
        let [first, second] = resources(LOG).try_into().unwrap();
        assert_eq!(first, Resources { entry: "first".to_string(), registers: 14, ..Resources::default() });
        let expected = Resources {
            entry: "second".to_string(),
            registers: 255,
            stack: 64,
            spill_stores: 12,
            spill_loads: 20,
            shared: 8192,
        };
        assert_eq!(second, expected);
        assert_eq!(resources("nothing about kernels"), []);
    }

    #[test]
    fn only_the_assemblers_own_warnings_count() {
        let warnings = warnings(LOG);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("C7510") && warnings[1].contains("spilled"));
    }
}
