//! The load generator: thousands of devices and a few callers on one thread and one epoll, frugal enough that the
//! server is the bottleneck.

mod caller;
mod device;
pub(crate) mod ws;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use socket2::{Domain, Socket, Type};

pub(crate) use caller::Answer;
use caller::Caller;
use device::{Device, Heard};

/// Events taken per wake-up.
const EVENTS: usize = 1024;
/// Bytes read at once; one buffer for all.
const SCRATCH: usize = 64 * 1024;
/// Connections per source address: each has its own range of ports.
const PER_SOURCE: usize = 10_000;
/// Marks the epoll data of a caller.
const CALLER: u64 = 1 << 32;
/// Longest latency told apart, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// What happened since it was last taken.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Updates that arrived; each was acked at once.
    pub(crate) delivered: u64,
    /// From the cause of an update to its arrival, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Devices that became live.
    pub(crate) live: usize,
    /// Requests answered `done`.
    pub(crate) done: usize,
    /// Connections that ended.
    pub(crate) closed: usize,
    /// Calls answered with 2xx.
    pub(crate) calls: u64,
    /// Refusals of any kind, and the words of the last one.
    pub(crate) refused: (u64, String),
}

impl Tally {
    fn new() -> io::Result<Self> {
        Ok(Self {
            delivered: 0,
            latency: Histogram::new_with_max(LONGEST, 3).map_err(io::Error::other)?,
            live: 0,
            done: 0,
            closed: 0,
            calls: 0,
            refused: (0, String::new()),
        })
    }

    fn refuse(&mut self, why: String) {
        self.refused.0 += 1;
        self.refused.1 = why;
    }
}

/// Devices and callers.
pub(crate) struct Fleet {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
    started: Instant,
    devices: Vec<Device>,
    callers: Vec<Caller>,
    calls_to: SocketAddr,
    idle: Vec<usize>,
    /// Updates that the devices of each user still wait for.
    pending: Vec<u32>,
    /// Users whose devices all have what was last caused.
    pub(crate) completed: u64,
    /// Whether answers to calls are kept.
    pub(crate) keep_answers: bool,
    /// Kept answers.
    pub(crate) answers: Vec<Answer>,
    /// What happened.
    pub(crate) tally: Tally,
}

impl Fleet {
    /// With `callers` connections to `calls_to`, for `users` users.
    pub(crate) fn new(calls_to: SocketAddr, callers: usize, users: usize) -> io::Result<Self> {
        let mut fleet = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            scratch: vec![0; SCRATCH],
            started: Instant::now(),
            devices: Vec::new(),
            callers: Vec::new(),
            calls_to,
            idle: Vec::new(),
            pending: vec![0; users],
            completed: 0,
            keep_answers: false,
            answers: Vec::new(),
            tally: Tally::new()?,
        };
        for index in 0..callers {
            let caller = fleet.caller(index)?;
            fleet.callers.push(caller);
            fleet.idle.push(index);
        }
        Ok(fleet)
    }

    fn caller(&self, index: usize) -> io::Result<Caller> {
        let stream = connect(self.calls_to, index)?;
        let data = epoll::EventData::new_u64(CALLER | index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        Ok(Caller::new(stream))
    }

    /// Nanoseconds since the fleet began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds a device of `user`. It becomes live in later turns.
    pub(crate) fn open(&mut self, to: SocketAddr, user: u32, upgrade: &[u8], hello: &[u8]) -> io::Result<()> {
        let index = self.devices.len();
        let stream = connect(to, index)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        self.devices.push(Device::open(stream, user, upgrade, hello)?);
        Ok(())
    }

    /// How many devices were ever opened.
    pub(crate) fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Whether a call can be made now.
    pub(crate) fn can_call(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether no call is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.idle.len() == self.callers.len()
    }

    /// Sends `request` over an idle caller; without one, it is counted as refused.
    pub(crate) fn call(&mut self, tag: u32, request: &[u8]) {
        let Some(index) = self.idle.pop() else {
            return self.tally.refuse("no caller was idle".into());
        };
        if let Err(error) = self.callers[index].call(tag, request) {
            self.tally.refuse(error.to_string());
        }
    }

    /// From now on `updates` updates are awaited by the devices of `user`.
    pub(crate) fn expect(&mut self, user: u32, updates: u32) {
        self.pending[user as usize] = updates;
    }

    /// Lets every device of `user` ask for a refresh, all at once.
    pub(crate) fn ask_for_refresh(&mut self, user: u32) -> io::Result<usize> {
        let mut asked = 0;
        for device in self.devices.iter_mut().filter(|device| device.user == user) {
            device.ask_for_refresh()?;
            asked += 1;
        }
        Ok(asked)
    }

    /// Takes what happened so far.
    pub(crate) fn take_tally(&mut self) -> io::Result<Tally> {
        Ok(std::mem::replace(&mut self.tally, Tally::new()?))
    }

    /// Waits at most `span` for something to happen, and handles it.
    pub(crate) fn turn(&mut self, span: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(span).map_err(io::Error::other)?;
        let mut events = std::mem::take(&mut self.events);
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout));
        for event in events.drain(..) {
            let data = event.data.u64();
            let index = usize::try_from(data & (CALLER - 1)).unwrap_or(usize::MAX);
            if data & CALLER != 0 {
                self.answered(index)?;
            } else {
                self.heard(index)?;
            }
        }
        self.events = events;
        match waited {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn heard(&mut self, index: usize) -> io::Result<()> {
        let device = &mut self.devices[index];
        let Heard {
            caused_at,
            updates,
            live,
            done,
            refused,
            closed,
        } = device.read(&mut self.scratch);
        if updates > 0 {
            self.tally.delivered += u64::from(updates);
            let pending = &mut self.pending[device.user as usize];
            if *pending > 0 {
                *pending = pending.saturating_sub(updates);
                self.completed += u64::from(*pending == 0);
            }
        }
        if let Some(caused_at) = caused_at {
            let now = self.now();
            self.tally
                .latency
                .saturating_record(now.saturating_sub(caused_at).max(1));
        }
        self.tally.live += usize::from(live);
        self.tally.done += usize::from(done);
        if let Some(why) = refused {
            self.tally.refuse(why);
        }
        if closed {
            self.tally.closed += 1;
            epoll::delete(&self.epoll, self.devices[index].stream())?;
        }
        Ok(())
    }

    fn answered(&mut self, index: usize) -> io::Result<()> {
        let Some(answer) = self.callers[index].read(&mut self.scratch, self.keep_answers) else {
            return Ok(());
        };
        if answer.status == 0 && self.idle.contains(&index) {
            // The server ended a connection on which nothing was under way, as it may: idle ones cost it memory.
            epoll::delete(&self.epoll, self.callers[index].stream())?;
            self.callers[index] = self.caller(index)?;
            return Ok(());
        }
        match answer.status {
            200..=299 => self.tally.calls += 1,
            0 => {
                // The caller is lost, and every measurement with it: it never becomes idle again.
                self.tally.refuse("a call's connection broke".into());
                return Ok(epoll::delete(&self.epoll, self.callers[index].stream())?);
            }
            status => self.tally.refuse(format!("a call was answered {status}")),
        }
        self.idle.push(index);
        if self.keep_answers {
            self.answers.push(answer);
        }
        Ok(())
    }
}

/// A connected, non-blocking socket. Loopback has many addresses, and each source address has its own 28,000 ports.
fn connect(to: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let source = u8::try_from(1 + index / PER_SOURCE).unwrap_or(u8::MAX);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
    socket.connect(&to.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
