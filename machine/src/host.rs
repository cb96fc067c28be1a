//! Time, processors and chance: the rest of the one door to the outside.

/// What the core asks of the outside besides memory and locks.
pub trait Host {
    /// Time since some fixed moment, in nanoseconds; never runs backwards.
    fn now(&self) -> u64;

    /// The processor that the caller runs on, below [`Host::cpus`]. A hint: the caller may have
    /// moved when it reads the answer.
    fn cpu(&self) -> usize;

    /// The number of processors, at least 1.
    fn cpus(&self) -> usize;

    /// A random number. Need not be secret.
    fn random(&self) -> u64;
}
