//! Registers and shared memory of kernels: from their machine code where NVRTC is found, else the limits that the compile gate
//! holds them to.

use std::collections::HashMap;

use crate::backend::cuda::driver::cache::Cache;
use crate::backend::cuda::driver::native::nvrtc::Nvrtc;
use crate::backend::cuda::driver::native::ptxas;
use crate::backend::cuda::{Entry, Source, Sources, modules};
use crate::error::{Error, Result};

/// Resources of a kernel, without those of its launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
}

/// Where the numbers come from.
enum From {
    MachineCode(Box<Nvrtc>, Cache),
    Limits,
}

/// Looks kernels up, each once.
pub(super) struct Library {
    architecture: String,
    from: From,
    /// The limits of every kernel, by the name of its module.
    limits: HashMap<String, &'static [Entry]>,
    known: HashMap<String, Vec<(String, Resources)>>,
}

impl Library {
    /// For an architecture, with the compiler of this machine if there is one.
    pub(super) fn find(architecture: &str) -> Library {
        let tools = Nvrtc::find(None).and_then(|nvrtc| Ok((nvrtc, Cache::of_user()?)));
        let from = tools.map_or(From::Limits, |(nvrtc, cache)| From::MachineCode(Box::new(nvrtc), cache));
        Library::new(architecture, from)
    }

    fn new(architecture: &str, from: From) -> Library {
        let limits = modules().into_iter().filter_map(|module| {
            Some((Sources::default().assemble(&module.variant).ok()?.name, module.entries))
        });
        Library { architecture: architecture.into(), from, limits: limits.collect(), known: HashMap::new() }
    }

    /// Where the numbers come from, in words.
    pub(super) fn source(&self) -> String {
        match &self.from {
            From::MachineCode(nvrtc, _) => {
                format!("machine code for {} by NVRTC {}", self.architecture, nvrtc.version())
            }
            From::Limits => "the limits that kernels are held to, for want of NVRTC".into(),
        }
    }

    /// The part of an edited kernel source that the predictions see.
    pub(super) fn sees(&self) -> &'static str {
        match &self.from {
            From::MachineCode(..) => {
                "the model sees their registers and static shared memory, and with them the blocks of a convolution that are resident; \
                 not their arithmetic, nor what they read and write: bytes and operations are those of the calls"
            }
            From::Limits => {
                "the model sees nothing of an edit: without NVRTC registers are limits by name, and bytes and operations are those of \
                 the calls; `residua doctor` says how to get NVRTC"
            }
        }
    }

    /// Resources of a kernel.
    ///
    /// # Errors
    /// It does not compile, or no module has it.
    pub(super) fn resources(&mut self, source: &Source, entry: &str) -> Result<Resources> {
        if !self.known.contains_key(&source.name) {
            let all = self.of_module(source)?;
            self.known.insert(source.name.clone(), all);
        }
        let found = self.known[&source.name].iter().find(|(name, _)| name == entry);
        found.map(|(_, resources)| *resources).ok_or_else(|| {
            Error::invalid(format!("{} has no kernel `{entry}`; its module does not list it", source.name))
        })
    }

    fn of_module(&self, source: &Source) -> Result<Vec<(String, Resources)>> {
        if let From::MachineCode(nvrtc, cache) = &self.from {
            let compiled = nvrtc.compile_cached(cache, source, &self.architecture)?.compiled;
            let used = ptxas::resources(&compiled.log).into_iter();
            let named =
                used.map(|used| (used.entry, Resources { registers: used.registers, shared: used.shared }));
            return Ok(named.collect());
        }
        let entries = self.limits.get(&source.name).copied().unwrap_or_default().iter();
        // Static shared memory is not among the limits; the dynamic part is known from the launch.
        let named = entries
            .map(|entry| (entry.name.to_string(), Resources { registers: entry.registers, shared: 0 }));
        Ok(named.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::Variant;

    #[test]
    fn without_a_compiler_a_kernel_uses_what_it_is_held_to() {
        let mut library = Library::new("sm_80", From::Limits);
        let variant = Variant { file: "convolution/split_k_reduce.cu", constants: &[] };
        let source = Sources::default().assemble(&variant).unwrap();
        let resources = library.resources(&source, "split_k_reduce").unwrap();
        assert_eq!(resources, Resources { registers: 64, shared: 0 });
        assert!(library.resources(&source, "absent").unwrap_err().to_string().contains("`absent`"));
        assert!(library.source().contains("limits"));
    }
}
