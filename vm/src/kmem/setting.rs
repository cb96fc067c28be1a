//! The tunables, by the names that the documents give them (K17).

use super::Kmem;
use crate::Vm;
use bsdvm_machine::Machine;
use bsdvm_machine::sync::atomic::Ordering;

/// Why a setting could not be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SettingError {
    /// There is no setting of that name.
    Unknown,
    /// It can be read only.
    ReadOnly,
    /// It takes 0 or 1.
    InvalidValue,
}

impl<M: Machine> Vm<M> {
    /// Every setting there is, in alphabetical order.
    pub const SETTINGS: [&'static str; 5] = [
        "debug.vm_lowmem",
        "vm.map_relock_enable",
        "vm.max_kernel_address",
        "vm.min_kernel_address",
        "vm.randomize_mmap",
    ];

    /// What a setting is; `None` for a name that there is not. The bounds of the kernel's
    /// addresses are 0 where there is no kernel map.
    pub fn setting(&self, name: &str) -> Option<u64> {
        let bounds = self.kmem().map(|kmem| kmem.map().space().range());
        let bounds = bounds.unwrap_or_default();
        Some(match name {
            "vm.min_kernel_address" => bounds.start().0,
            "vm.max_kernel_address" => bounds.end().0,
            "vm.randomize_mmap" => self.kmem.randomize_mmap.load(Ordering::Relaxed).into(),
            "vm.map_relock_enable" => self.kmem.map_relock.load(Ordering::Relaxed).into(),
            "debug.vm_lowmem" => 0,
            _ => return None,
        })
    }

    /// Sets a setting. `debug.vm_lowmem` announces low memory when it is set to 1 (K16).
    ///
    /// Errors: [`SettingError`]; nothing is changed then.
    pub fn set_setting(&self, name: &str, value: u64) -> Result<(), SettingError> {
        let on = match value {
            0 => false,
            1 => true,
            _ if self.setting(name).is_none() => return Err(SettingError::Unknown),
            _ => return Err(SettingError::InvalidValue),
        };
        match name {
            "vm.randomize_mmap" => self.kmem.randomize_mmap.store(on, Ordering::Relaxed),
            "vm.map_relock_enable" => self.kmem.map_relock.store(on, Ordering::Relaxed),
            "debug.vm_lowmem" if on => {
                self.kmem().into_iter().for_each(Kmem::low_memory);
            }
            "debug.vm_lowmem" => {}
            name if self.setting(name).is_some() => return Err(SettingError::ReadOnly),
            _ => return Err(SettingError::Unknown),
        }
        Ok(())
    }
}
