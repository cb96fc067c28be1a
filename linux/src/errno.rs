//! Error numbers: typed, and known in this crate only.

use bsdvm::{FaultError, MapError, ObjectError, PagerError, SpaceError, UserError};
use core::fmt;
use linux_raw_sys::errno as raw;

/// A Linux error number, 1 to 4095.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! numbers {
    ($($name:ident),* $(,)?) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Errno = Errno(raw::$name as i32);)*
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Errno::$name => f.write_str(stringify!($name)),)*
                    Errno(n) => write!(f, "errno {n}"),
                }
            }
        }
    };
}

numbers!(
    E2BIG,
    EACCES,
    EADDRINUSE,
    EAFNOSUPPORT,
    EAGAIN,
    EBADF,
    EBUSY,
    ECHILD,
    ECONNREFUSED,
    ECONNRESET,
    EDEADLK,
    EDESTADDRREQ,
    EDOM,
    EEXIST,
    EFAULT,
    EFBIG,
    EIDRM,
    EINTR,
    EINVAL,
    EIO,
    EISCONN,
    EISDIR,
    ELIBBAD,
    ELOOP,
    EMFILE,
    EMSGSIZE,
    ENAMETOOLONG,
    ENFILE,
    ENOBUFS,
    ENODATA,
    ENODEV,
    ENOENT,
    ENOEXEC,
    ENOLCK,
    ENOMEM,
    ENOMSG,
    ENOPROTOOPT,
    ENOSPC,
    ENOSYS,
    ENOTCONN,
    ENOTDIR,
    ENOTEMPTY,
    ENOTSOCK,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    EPIPE,
    EPROTONOSUPPORT,
    EPROTOTYPE,
    ERANGE,
    EROFS,
    ESOCKTNOSUPPORT,
    ESPIPE,
    ESRCH,
    ETIMEDOUT,
    ETOOMANYREFS,
    ETXTBSY,
    EXDEV,
);

impl Errno {
    /// Interrupted: start again after the handler if it was set with `SA_RESTART`, or if none ran.
    pub const RESTART: Errno = Errno(512);
    /// Interrupted: start again only if no handler ran (`pause`, `rt_sigsuspend`, `nanosleep`).
    pub const RESTART_NO_HANDLER: Errno = Errno(514);

    /// What a program finds in its result register.
    pub const fn as_result(self) -> u64 {
        -(self.0 as i64) as u64
    }

    /// The error's text, as `strerror` has it, for the errors that starting a program can meet.
    pub fn message(self) -> &'static str {
        match self {
            Errno::ENOENT => "no such file or directory",
            Errno::EACCES => "permission denied",
            Errno::ENOEXEC => "not an executable format",
            Errno::EISDIR => "is a directory",
            Errno::ENOTDIR => "not a directory",
            Errno::ENOMEM => "not enough memory",
            Errno::ELOOP => "too many levels of symbolic links or interpreters",
            Errno::ELIBBAD => "its interpreter is damaged",
            Errno::ENAMETOOLONG => "name too long",
            Errno::E2BIG => "argument list too long",
            Errno::EFAULT => "bad address",
            Errno::EINVAL => "invalid argument",
            Errno::EIO => "input/output error",
            Errno::EAGAIN => "the host refuses another process or thread",
            Errno::EPERM => "operation not permitted",
            Errno::EMFILE | Errno::ENFILE => "too many open files",
            Errno::ENXIO | Errno::ENODEV => "no such device",
            _ => "cannot be started",
        }
    }
}

impl From<MapError> for Errno {
    fn from(e: MapError) -> Errno {
        match e {
            MapError::InvalidAddress | MapError::InvalidArgument | MapError::Submap => {
                Errno::EINVAL
            }
            MapError::Overlap => Errno::EEXIST,
            MapError::NoSpace
            | MapError::NoMemory
            | MapError::Hole
            | MapError::NotWired
            | MapError::ChargeLimit => Errno::ENOMEM,
            MapError::Protection => Errno::EACCES,
            MapError::Wired => Errno::EBUSY,
            MapError::BeyondEnd => Errno::ENXIO,
            MapError::Pager(e) => e.into(),
            MapError::Exiting => Errno::EINTR,
        }
    }
}

impl From<PagerError> for Errno {
    fn from(e: PagerError) -> Errno {
        match e {
            PagerError::Io(n) if (1..4096).contains(&n) => Errno(n),
            PagerError::Io(_) | PagerError::BadFrame => Errno::EIO,
            PagerError::NoSpace => Errno::ENOSPC,
        }
    }
}

impl From<ObjectError> for Errno {
    fn from(e: ObjectError) -> Errno {
        match e {
            ObjectError::NoMemory | ObjectError::ChargeLimit => Errno::ENOMEM,
            ObjectError::BeyondEnd => Errno::EINVAL,
            ObjectError::Device => Errno::ENODEV,
            ObjectError::Pager(e) => e.into(),
        }
    }
}

impl From<SpaceError> for Errno {
    fn from(e: SpaceError) -> Errno {
        match e {
            SpaceError::NoMemory | SpaceError::ChargeLimit => Errno::ENOMEM,
            SpaceError::Exiting => Errno::EINTR,
            SpaceError::NoResources => Errno::EAGAIN,
            SpaceError::Submap => Errno::EINVAL,
        }
    }
}

impl From<UserError> for Errno {
    fn from(e: UserError) -> Errno {
        match e.why {
            FaultError::NoMemory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        }
    }
}
