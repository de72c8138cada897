//! Network namespaces: one for each node, and one, the hub, in which the devices are made. Nothing is done to the namespace of the machine.

#![expect(clippy::disallowed_methods, reason = "namespaces are made by the command `ip`, and processes have a folder")]

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{RealError, address, failed};

/// The names that belong to one run: no other has them.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    nodes: u32,
}

impl Names {
    /// Those of a new run of this process.
    pub(crate) fn new(nodes: u32) -> Self {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        Names { prefix: format!("meshwork-{}-{:x}", std::process::id(), micros & 0xffff_ffff), nodes }
    }

    /// Those with a prefix that another process chose; none when it is not one that [`Names::new`] makes. Whatever has these names is taken away in the end.
    pub(crate) fn of(prefix: &str, nodes: u32) -> Option<Self> {
        let rest = prefix.strip_prefix("meshwork-")?;
        let is_name = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_name.then(|| Names { prefix: prefix.to_owned(), nodes })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The namespace of the devices until they are moved.
    pub(crate) fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    /// The namespace of a node.
    pub(crate) fn node(&self, node: u32) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// The folder of the run.
    pub(crate) fn folder(&self) -> PathBuf {
        std::env::temp_dir().join(&self.prefix)
    }

    fn all(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.hub()).chain((0..self.nodes).map(|node| self.node(node)))
    }
}

/// Namespaces and a folder, which go when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespaces(Names);

impl Namespaces {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// [`RealError::Skipped`] where that is not permitted.
    pub(crate) fn make(nodes: u32) -> Result<Self, RealError> {
        let skipped = |why: &str| RealError::Skipped(why.to_owned());
        if !rustix::process::geteuid().is_root() {
            return Err(skipped("only root makes network namespaces"));
        }
        if !Path::new("/dev/net/tun").exists() {
            return Err(skipped("there is no /dev/net/tun"));
        }
        if let Err(error) = ip(&["-Version"], "") {
            return Err(match error.kind() {
                ErrorKind::NotFound => skipped("the command ip is not installed"),
                _ => RealError::Skipped(format!("the command ip does not run: {error}")),
            });
        }
        // From here on whatever was made goes again.
        let made = Namespaces(Names::new(nodes));
        let hub = made.0.hub();
        for arguments in [&["netns", "add", &hub][..], &["netns", "exec", &hub, "true"]] {
            let output = ip(arguments, "").map_err(failed("run ip"))?;
            if !output.status.success() {
                return Err(RealError::Skipped(format!("no network namespace: {}", said(&output))));
            }
        }
        let lines: String = (0..nodes).fold(String::new(), |mut lines, node| {
            let _ = writeln!(lines, "netns add {}", made.0.node(node));
            lines
        });
        batch(&[], &lines)?;
        // The secret of the cluster will be in it.
        std::fs::DirBuilder::new().mode(0o700).create(made.0.folder()).map_err(failed("make a folder for the nodes"))?;
        Ok(made)
    }

    pub(crate) fn names(&self) -> &Names {
        &self.0
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        clean(&self.0);
    }
}

/// Ends whatever runs in the namespaces of a run and takes them and its folder away, as far as they are there.
pub(crate) fn clean(names: &Names) {
    let mut lines = String::new();
    for name in names.all() {
        // None of these can be told to anybody any more: the next is tried.
        if let Ok(output) = ip(&["netns", "pids", &name], "") {
            let me = rustix::process::getpid();
            for pid in String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|pid| *pid != me) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if output.status.success() {
                let _ = writeln!(lines, "netns delete {name}");
            }
        }
    }
    let _ = ip(&["-force", "-batch", "-"], &lines);
    let _ = std::fs::remove_dir_all(names.folder());
}

/// Moves the device of each node to its namespace and gives it the address of the node.
pub(crate) fn wire_up(names: &Names, nodes: u32, device: impl Fn(u32) -> String) -> Result<(), RealError> {
    let moves: String = (0..nodes).fold(String::new(), |mut lines, node| {
        let _ = writeln!(lines, "link set {} netns {}", device(node), names.node(node));
        lines
    });
    batch(&[], &moves)?;
    for node in 0..nodes {
        let (device, ip) = (device(node), address::ip(node));
        let lines = format!("link set lo up\naddr add {ip}/32 dev {device}\nlink set {device} up\nroute add 10.0.0.0/8 dev {device}\n");
        batch(&["-n", &names.node(node)], &lines)?;
    }
    Ok(())
}

/// Runs several commands of `ip` at one go.
fn batch(arguments: &[&str], lines: &str) -> Result<(), RealError> {
    let output = ip(&[arguments, &["-batch", "-"]].concat(), lines).map_err(failed("run ip"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(RealError::Failed(format!("ip refuses: {}", said(&output)))),
    }
}

fn ip(arguments: &[&str], input: &str) -> std::io::Result<Output> {
    let mut command = Command::new("ip");
    // A group of its own: ctrl-c is for this program, which then has `ip` take everything away.
    let mut child = command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut to) = child.stdin.take() {
        // A command that reads nothing may be gone already.
        let _ = to.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().next().unwrap_or("it does not say why").trim().to_owned()
}
