//! The devices, and the loop that moves packets between them and the wire.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::wire::Wire;
use super::{RealError, failed};

/// Bytes of the largest packet.
const PACKET_BYTES_MAX: usize = 65_535;
/// The MTU of the devices: that of Ethernet.
const MTU: u16 = 1_500;
/// Packets that are taken of one device before the others get their turn, and what is due is handed over.
const TAKEN_MAX: usize = 32;
/// How long the loop may sleep before it looks whether it shall end.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// How much more of the processor the loop gets than others, as `nice` counts: what it is late by, every packet is.
const NICE: i32 = -15;

/// The name of the device of a node.
pub(super) fn device_name(node: u32) -> String {
    format!("mesh{node}")
}

/// Makes the devices of some nodes in the namespace of this process. They stay with this process wherever they are moved to.
pub(super) fn devices(nodes: u32) -> Result<Vec<SyncDevice>, RealError> {
    (0..nodes)
        .map(|node| {
            let device = DeviceBuilder::new().name(device_name(node)).mtu(MTU).enable(false).build_sync();
            let device = device.map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::NotFound => RealError::Skipped(format!("no TUN device: {error}")),
                _ => RealError::Failed(format!("cannot make a TUN device: {error}")),
            })?;
            device.set_nonblocking(true).map_err(failed("set up a TUN device"))?;
            Ok(device)
        })
        .collect()
}

/// Locks the wire; nobody who holds it can leave it half done.
pub(super) fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries packets until it is told to stop. Moments are counted from `started`.
pub(super) fn carry(devices: &[SyncDevice], wire: &Mutex<Wire>, started: Instant, stop: &AtomicBool) -> Result<(), RealError> {
    // Without the right to it the loop is as good as any other process.
    let _ = rustix::process::setpriority_process(None, NICE);
    let now = || started.elapsed().as_micros() as u64;
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let next = hand_over(devices, wire, now());
        let sleep = next.map_or(SLEEP_MAX, |at| Duration::from_micros(at.saturating_sub(now())).min(SLEEP_MAX));
        let mut polled: Vec<PollFd<'_>> = devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
        let sleep = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
        match poll(&mut polled, Some(&sleep)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(RealError::Failed(format!("cannot wait for packets: {error}"))),
        }
        for ((node, device), polled) in (0..).zip(devices).zip(&polled) {
            if polled.revents().is_empty() {
                continue;
            }
            for _ in 0..TAKEN_MAX {
                match device.recv(&mut buffer) {
                    Ok(len) => lock(wire).offer(node, &buffer[..len], now()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(RealError::Failed(format!("cannot read from the device of node {node}: {error}"))),
                }
            }
        }
    }
    Ok(())
}

/// Hands over what is due, and says when the next packet is.
fn hand_over(devices: &[SyncDevice], wire: &Mutex<Wire>, now: u64) -> Option<u64> {
    let mut wire = lock(wire);
    while let Some((to, packet)) = wire.due(now) {
        // A full queue, or a device that is down: what a network does with a packet that nobody takes.
        if devices[to as usize].send(&packet).is_err() {
            wire.refused();
        }
    }
    wire.next_due()
}
