//! One end of a wire, as the kernel sees it: an interface whose packets are read and written here.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{Mode, OFlags},
    ioctl::{Setter, ioctl, opcode},
};

/// `struct ifreq` of `linux/if.h`, as far as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `IFF_TUN | IFF_NO_PI`: bare IP packets.
const BARE_IP: u16 = 0x1001;
/// `TUNSETIFF` of `linux/if_tun.h`.
const SET_INTERFACE: u32 = opcode::write::<i32>(b'T', 202);

/// Makes the interface `name` in this thread's network namespace. It goes with the descriptor.
///
/// # Errors
/// When the system does not let it.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let end = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut request = Request {
        name: [0; 16],
        flags: BARE_IP,
        rest: [0; 22],
    };
    for (to, byte) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = byte;
    }
    #[expect(unsafe_code, reason = "the kernel offers this by ioctl only")]
    // SAFETY: TUNSETIFF reads one `struct ifreq`, and `Request` is laid out as one.
    unsafe {
        ioctl(&end, Setter::<SET_INTERFACE, Request>::new(request))?;
    }
    Ok(end)
}
