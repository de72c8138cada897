//! What a node is told: a flag wins over an environment variable, that over the configuration file, that over the default.

#![expect(clippy::disallowed_methods, reason = "configuration stands in files")]

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::Failure;
use super::admin::Endpoint;
use crate::node::{Config, Kind};
use crate::runtime::{Builder, Node};
use crate::services::{self, config, registry};

/// The cluster of a node that is told none.
pub(super) const CLUSTER: &str = "default";
/// What begins a join token.
const TOKEN_PREFIX: &str = "mesh1";
/// Bytes of a file that is read whole.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

#[derive(Args, Debug, Default)]
#[command(after_help = "\
Nodes of the same user find each other on the local network with no argument at all. Another machine or user joins with the token that a node prints \
(better in MESHWORK_JOIN or in a file, `--join @FILE`, than on the command line, where others may see it).

Typed lines are broadcast to every other node; `/help` lists what else can be typed. Ctrl-c leaves the cluster.

A flag wins over its environment variable, that over the configuration file. The file is TOML with the keys cluster, join, listen, advertise, data, admin, \
topology, mdns, app_config, and the tables [node] for the protocols and [services] for config and registry, of which the README shows an example. MESHWORK_STATE_DIR is the folder of the secrets and admin sockets of this user \
[default: ~/.local/state/meshwork].")]
pub(super) struct NodeArgs {
    /// Name of the cluster; without one, that of the join token, else `default`
    #[arg(long, env = "MESHWORK_CLUSTER", hide_env_values = true, value_name = "NAME")]
    cluster: Option<String>,
    /// Where to join: the address of any node (host:port), a join token, or @FILE that holds one of these per line; can be repeated
    #[arg(long, env = "MESHWORK_JOIN", value_name = "ADDR|TOKEN|@FILE", value_delimiter = ',', hide_env_values = true)]
    join: Vec<String>,
    /// UDP address to listen on, such as 0.0.0.0:4100 [default: a free port on every IPv4 interface; with --no-secret, on loopback]
    #[arg(long, env = "MESHWORK_LISTEN", hide_env_values = true, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address at which others reach this node, if it is not the listening one
    #[arg(long, env = "MESHWORK_ADVERTISE", hide_env_values = true, value_name = "ADDR")]
    advertise: Option<SocketAddr>,
    /// Folder for the key of the node, the peers it knew and the replicated state, so that it is the same node after a restart [default: in memory]
    #[arg(long, env = "MESHWORK_DATA", hide_env_values = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where `meshwork ctl` reaches this node: a loopback address, a path for a Unix socket, or `off` [default: a socket in the state folder of the user]
    #[arg(long, env = "MESHWORK_ADMIN", hide_env_values = true, value_name = "ADDR|PATH")]
    admin: Option<String>,
    /// Configuration file, in TOML
    #[arg(long, env = "MESHWORK_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Values for the config service, in TOML, read again whenever the file changes
    #[arg(long, env = "MESHWORK_APP_CONFIG", hide_env_values = true, value_name = "FILE")]
    app_config: Option<PathBuf>,
    /// Where this node is, in any words: the zone of what it registers
    #[arg(long, env = "MESHWORK_ZONE", hide_env_values = true)]
    zone: Option<String>,
    /// Overlay: `hyparview` (a few neighbors, any size) or `mesh` (everybody; up to some tens of nodes); the same on all nodes
    #[arg(long, env = "MESHWORK_TOPOLOGY", hide_env_values = true, value_name = "KIND")]
    topology: Option<Kind>,
    /// Neither find nor be found by mDNS
    #[arg(long, env = "MESHWORK_NO_MDNS", hide_env_values = true, value_parser = |text: &str| switch("MESHWORK_NO_MDNS", text))]
    no_mdns: bool,
    /// Run without any secret, for tests: loopback only, and every program of this machine can join
    #[arg(long, env = "MESHWORK_NO_SECRET", hide_env_values = true, value_parser = |text: &str| switch("MESHWORK_NO_SECRET", text))]
    no_secret: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// The configuration file.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    cluster: Option<String>,
    join: Vec<String>,
    listen: Option<SocketAddr>,
    advertise: Option<SocketAddr>,
    data: Option<PathBuf>,
    admin: Option<String>,
    topology: Option<Kind>,
    mdns: Option<bool>,
    app_config: Option<PathBuf>,
    node: Config,
    services: ServicesFile,
}

/// The services in the configuration file, which are not written under `node`: here the config of the cluster is on by default.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServicesFile {
    config: ClusterConfig,
    registry: registry::Config,
}

/// As [`config::Config`], but for the default of `is_synced`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ClusterConfig {
    is_synced: bool,
    updatable_paths: Option<Vec<config::Path>>,
    strategy: config::Strategy,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig { is_synced: true, updatable_paths: None, strategy: config::Strategy::default() }
    }
}

impl From<ServicesFile> for services::Config {
    fn from(file: ServicesFile) -> Self {
        let ClusterConfig { is_synced, updatable_paths, strategy } = file.config;
        services::Config { config: config::Config { is_synced, updatable_paths, strategy }, registry: file.registry }
    }
}

/// What a variable says that stands for a flag: the words of the configuration file, and the numbers that people write for them. An empty variable says nothing.
fn switch(variable: &str, text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(format!("{variable} is true or false")),
    }
}

/// Where the admin endpoint of a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admin {
    /// In the state folder of the user.
    Default,
    /// Nowhere.
    Off,
    At(Endpoint),
}

/// What a node is told in the end.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) cluster: Option<String>,
    pub(super) join: Vec<String>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) advertise: Option<SocketAddr>,
    pub(super) data: Option<PathBuf>,
    pub(super) admin: Admin,
    pub(super) mdns: bool,
    /// The file of the config service.
    pub(super) app_config: Option<PathBuf>,
    pub(super) without_secret: bool,
    pub(super) config: Config,
    pub(super) json: bool,
    /// The configuration file, and what of that which only the start can check is from there.
    filed: Option<(PathBuf, Vec<&'static str>)>,
}

impl NodeArgs {
    /// Merges flags, environment (which the flags hold already), file and defaults.
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => parse_file("", "").map_err(Failure::usage)?,
        };
        let filed = [
            ("cluster", self.cluster.is_none() && file.cluster.is_some()),
            ("join", self.join.is_empty() && !file.join.is_empty()),
            ("advertise", self.advertise.is_none() && file.advertise.is_some()),
            ("data", self.data.is_none() && file.data.is_some()),
        ];
        let filed = filed.into_iter().filter(|(_, is_filed)| *is_filed).map(|(key, _)| key).collect();
        let mut config = file.node;
        if let Some(zone) = self.zone {
            config.services.registry.zone = Some(zone);
        }
        if let Some(topology) = self.topology.or(file.topology) {
            config.topology = topology;
        }
        let join = if self.join.is_empty() { file.join } else { self.join };
        Ok(Settings {
            cluster: self.cluster.or(file.cluster),
            join: expand(join)?,
            listen: self.listen.or(file.listen),
            advertise: self.advertise.or(file.advertise),
            data: self.data.or(file.data),
            admin: admin(self.admin.or(file.admin).as_deref())?,
            mdns: !self.no_mdns && file.mdns.unwrap_or(true),
            app_config: self.app_config.or(file.app_config),
            without_secret: self.no_secret,
            config,
            json: self.json,
            filed: self.config.map(|path| (path, filed)),
        })
    }
}

impl Settings {
    /// Where a setting was written that turned out to be unusable: the file and its key, or the flag.
    pub(super) fn named(&self, key: &str) -> String {
        match &self.filed {
            Some((file, keys)) if keys.contains(&key) => format!("{}: {key}", file.display()),
            _ => format!("--{key}"),
        }
    }

    pub(super) fn builder(&self) -> Builder {
        // A token names its cluster.
        let unnamed = if self.join.iter().any(|join| is_token(join)) { Node::CLUSTER_OF_TOKEN } else { CLUSTER };
        let mut builder = Node::builder(self.cluster.as_deref().unwrap_or(unnamed)).mdns(self.mdns).config(self.config.clone());
        for join in &self.join {
            builder = builder.join(join);
        }
        if let Some(listen) = self.listen {
            builder = builder.listen(listen);
        }
        if let Some(advertise) = self.advertise {
            builder = builder.advertise(advertise);
        }
        if let Some(data) = &self.data {
            builder = builder.data_dir(data);
        }
        if self.without_secret {
            builder = builder.insecure_without_secret();
        }
        builder
    }
}

pub(super) fn is_token(text: &str) -> bool {
    text.get(..TOKEN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(TOKEN_PREFIX)) && !text.contains(':')
}

fn admin(given: Option<&str>) -> Result<Admin, Failure> {
    match given {
        None => Ok(Admin::Default),
        Some("off") => Ok(Admin::Off),
        Some(text) => Endpoint::parse(text).map(Admin::At),
    }
}

/// Replaces each `@FILE` by the lines of the file that are neither empty nor comments.
fn expand(joins: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut expanded = Vec::with_capacity(joins.len());
    for join in joins {
        match join.strip_prefix('@') {
            Some(path) => {
                let content = read(Path::new(path))?;
                let before = expanded.len();
                expanded
                    .extend(content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned));
                if expanded.len() == before {
                    return Err(Failure::usage(format!("{path}: no address and no token in it")));
                }
            }
            None => expanded.push(join.trim().to_owned()),
        }
    }
    Ok(expanded)
}

/// Reads a file whole. Only a regular one: a pipe or a device may block for ever or never end.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |problem: &dyn std::fmt::Display| Failure::usage(format!("cannot read {}: {problem}", path.display()));
    // Looked at before it is opened, because to open a pipe waits for a writer.
    if !std::fs::metadata(path).map_err(|error| cannot(&error))?.is_file() {
        return Err(cannot(&"it is not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(|error| cannot(&error))?;
    let mut text = String::new();
    // Whatever the file says of its length, and however it grows meanwhile.
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(cannot(&format!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn read_file(path: &Path) -> Result<File, Failure> {
    parse_file(&path.display().to_string(), &read(path)?).map_err(Failure::usage)
}

/// Reads a configuration, and checks it; the error names file, line and key.
fn parse_file(name: &str, text: &str) -> Result<File, String> {
    let mut file: File = toml::from_str(text).map_err(|error| {
        let (line, key) = error.span().map_or((1, None), |span| place(text, span.start));
        let key = key.map(|key| format!("`{key}`: ")).unwrap_or_default();
        format!("{name}:{line}: {key}{}", error.message().replace('\n', " "))
    })?;
    if file.node.services != services::Config::default() {
        return Err(format!("{name}: node.services: write [services] instead"));
    }
    file.node.services = std::mem::take(&mut file.services).into();
    if let Err(error) = file.node.check() {
        let field = if error.field == "services" { "services.registry".to_owned() } else { format!("node.{}", error.field) };
        let line = line_of(text, &field, &error.problem).map(|line| format!(":{line}")).unwrap_or_default();
        return Err(format!("{name}{line}: {field}: {}", error.problem));
    }
    Ok(file)
}

/// The number of the line at `offset`, and the key on it with the table that it is in.
fn place(text: &str, offset: usize) -> (usize, Option<String>) {
    let mut start = 0;
    let mut table = None;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if let Some(header) = header(line) {
            table = Some(header);
        }
        start += line.len();
        if start > offset || start == text.len() {
            let key = line.split_once('=').map(|(key, _)| key.trim());
            return (index + 1, key.map(|key| table.map_or_else(|| key.to_owned(), |table| format!("{table}.{key}"))));
        }
    }
    (1, None)
}

/// Where a field that failed its check stands: the key that the problem begins with, in the table of the field, or the field itself.
fn line_of(text: &str, field: &str, problem: &str) -> Option<usize> {
    let first = problem.split([':', ' ', '`']).find(|word| !word.is_empty()).unwrap_or_default();
    let candidates = [format!("{field}.{first}"), field.to_owned()];
    let mut offset = 0;
    let mut in_header = None;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if header(line).is_some_and(|table| candidates.iter().any(|candidate| candidate == table)) {
            in_header = Some(index + 1);
        }
        if place(text, offset).1.is_some_and(|key| candidates.contains(&key)) {
            return Some(index + 1);
        }
        offset += line.len();
    }
    in_header
}

fn header(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.split(']').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        node: NodeArgs,
    }

    fn parse(arguments: &[&str]) -> NodeArgs {
        Command::try_parse_from(std::iter::once(&"node").chain(arguments)).unwrap_or_else(|error| panic!("{error}")).node
    }

    #[test]
    fn everything_has_a_default() {
        let settings = parse(&[]).settings().unwrap();
        assert_eq!((settings.cluster, settings.admin, settings.mdns, settings.without_secret), (None, Admin::Default, true, false));
        assert!(settings.config.services.config.is_synced, "the config of the cluster is on");
        let services = services::Config::default();
        assert_eq!(Config { services, ..settings.config }, Config::default());
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = std::env::temp_dir().join(format!("meshwork-settings-{}.toml", std::process::id()));
        std::fs::write(
            &file,
            "cluster = \"file\"\nlisten = \"127.0.0.1:1\"\njoin = [\"127.0.0.1:2\"]\nmdns = false\ntopology = \"mesh\"\nadmin = \"off\"\n",
        )
        .unwrap();
        let path = file.to_str().unwrap();
        let settings = parse(&["--config", path, "--cluster", "flag", "--join", "127.0.0.1:3,127.0.0.1:4"]).settings().unwrap();
        assert_eq!(settings.cluster.as_deref(), Some("flag"));
        assert_eq!(settings.join, ["127.0.0.1:3", "127.0.0.1:4"]);
        assert_eq!(settings.listen, Some(SocketAddr::from(([127, 0, 0, 1], 1))));
        assert_eq!((settings.mdns, settings.admin, settings.config.topology), (false, Admin::Off, Kind::Mesh));
        let settings = parse(&["--config", path, "--topology", "hyparview", "--admin", "127.0.0.1:9"]).settings().unwrap();
        assert_eq!(settings.config.topology, Kind::Hyparview);
        assert_eq!(settings.admin, Admin::At(Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 9)))));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse_file("mesh.toml", "cluster = \"a\"\nport = 4000\n").unwrap_err();
        assert!(error.starts_with("mesh.toml:2: `port`: unknown field"), "{error}");
        let error = parse_file("mesh.toml", "[node]\ntopology = \"hyparview\"\n\n[node.links]\nlight = 3\n").unwrap_err();
        assert!(error.starts_with("mesh.toml:5: `node.links.light`: unknown field"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        let error = parse_file("mesh.toml", "\nlisten = \"nowhere\"\n").unwrap_err();
        assert!(error.starts_with("mesh.toml:2: `listen`: ") && !error.contains('\n'), "{error}");
        let error = parse_file("mesh.toml", "cluster = \n").unwrap_err();
        assert!(error.starts_with("mesh.toml:1: `cluster`: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_value_that_fails_its_check_is_named_with_its_line() {
        let error = parse_file("mesh.toml", "cluster = \"a\"\n[node.links]\nlight_idle_s = 0\n").unwrap_err();
        assert!(error.starts_with("mesh.toml:3: node.links.light_idle_s: 0 "), "{error}");
    }

    #[test]
    fn services_have_a_table_of_their_own() {
        let text = "[services.config]\nupdatable_paths = [\"app\"]\nstrategy = \"merge\"\n[services.registry]\nzone = \"north\"\n";
        let services = parse_file("mesh.toml", text).unwrap().node.services;
        assert!(services.config.is_synced && services.config.strategy == config::Strategy::Merge);
        assert_eq!((services.config.updatable_paths.map(|paths| paths.len()), services.registry.zone.as_deref()), (Some(1), Some("north")));
        assert!(!parse_file("mesh.toml", "[services.config]\nis_synced = false\n").unwrap().node.services.config.is_synced);
        let error = parse_file("mesh.toml", "[services.registry]\nzone = \"\"\n").unwrap_err();
        assert!(error.starts_with("mesh.toml:2: services.registry: zone is "), "{error}");
        let error = parse_file("mesh.toml", "[services.config]\nupdatable_paths = [\"/\"]\n").unwrap_err();
        assert!(error.starts_with("mesh.toml:2: `services.config.updatable_paths`: "), "{error}");
        assert!(parse_file("mesh.toml", "[node.services.config]\nis_synced = true\n").unwrap_err().contains("write [services]"));
    }

    #[test]
    fn joins_can_stand_in_a_file() {
        let file = std::env::temp_dir().join(format!("meshwork-join-{}", std::process::id()));
        std::fs::write(&file, "# the seeds\n127.0.0.1:1\n\nmesh1abc\n").unwrap();
        assert_eq!(expand(vec![format!("@{}", file.display()), "host:5".into()]).unwrap(), ["127.0.0.1:1", "mesh1abc", "host:5"]);
        std::fs::write(&file, "# nothing\n").unwrap();
        assert!(expand(vec![format!("@{}", file.display())]).unwrap_err().message.contains("no address"));
        std::fs::remove_file(&file).unwrap();
        assert!(expand(vec![format!("@{}", file.display())]).is_err());
    }

    #[test]
    fn a_variable_in_place_of_a_flag_takes_no_other_words_than_the_file() {
        let read = ["true", "1", "false", "0", ""].map(|text| switch("MESHWORK_NO_SECRET", text));
        assert_eq!(read, [Ok(true), Ok(true), Ok(false), Ok(false), Ok(false)]);
        assert_eq!(switch("MESHWORK_NO_SECRET", "nope"), Err("MESHWORK_NO_SECRET is true or false".to_owned()));
    }

    #[test]
    fn only_regular_files_of_a_bounded_length_are_read() {
        let dir = std::env::temp_dir().join(format!("meshwork-read-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (pipe, long) = (dir.join("pipe"), dir.join("long"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::fs::write(&long, vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        for path in [pipe.as_path(), &dir, Path::new("/dev/zero")] {
            let problem = read(path).unwrap_err().message;
            assert!(problem.contains("not a regular file") && problem.contains(path.to_str().unwrap()), "{problem}");
        }
        assert!(read(&long).unwrap_err().message.contains("more than 1048576 bytes"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_token_is_told_from_an_address() {
        assert!(is_token("mesh1abcdef") && is_token("MESH1ABC"));
        assert!(!is_token("mesh1:4000") && !is_token("host:1") && !is_token("ü"));
    }
}
