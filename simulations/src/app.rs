//! An application of your own on every node of a run: the type that the runtime drives over QUIC, unchanged, in virtual time and with the faults of a plan.
//!
//! ```
//! use meshwork::app::{Application, Context};
//! use meshwork::node::Delivery;
//! use meshwork_simulations::app::Play;
//! use meshwork_simulations::plan::SECOND;
//! use meshwork_simulations::scenarios::Scenario;
//!
//! /// Says aloud what its owner says, and tells its owner what the others say.
//! struct Crier;
//!
//! impl Application for Crier {
//!     type Input = &'static str;
//!     type Output = String;
//!
//!     fn on_input(&mut self, said: &'static str, context: &mut Context<'_, Self>) {
//!         context.broadcast(said).expect("short enough");
//!     }
//!
//!     fn on_broadcast(&mut self, delivery: Delivery, context: &mut Context<'_, Self>) {
//!         context.output(String::from_utf8_lossy(&delivery.payload).into_owned());
//!     }
//! }
//!
//! // Ten nodes that are cut in two from the 27th second to the 57th; one of them says something meanwhile.
//! let plan = Scenario::named("partition").unwrap().plan(10, 7, &[]).unwrap();
//! let played = Play::new(plan, |_birth| Crier)
//!     .tell(30 * SECOND, 3, "hear, hear")
//!     .eventually("heard by all", |nodes| {
//!         let deaf = nodes.alive().find(|node| *node != 3 && nodes.outputs_of(*node).count() == 0);
//!         deaf.map_or(Ok(()), |node| Err(format!("node {node} heard nothing")))
//!     })
//!     .run()
//!     .unwrap();
//! assert!(played.outcome.ok, "{:?}", played.outcome.failure);
//! assert_eq!(played.nodes().outputs_of(8).collect::<Vec<_>>(), ["hear, hear"]);
//! ```
//!
//! What the plan has nodes broadcast, send and write by themselves is left out: the application is the workload. Everything else is as in any run, with its invariants, its metrics and its
//! digest. An application that crashes with its node begins anew with the next life, as a program does. If it panics, the panic goes through to the caller.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use meshwork::app::{Application, Runner};
use meshwork::crdt::{Op, Stamp, Value};
use meshwork::node::{self, Action, Node};
use meshwork_channels::{Now, PeerId, Time};

use crate::disk::Disk;
use crate::host::{Birth, Effect, Host, Input, RealNode, RealParams, Tally};
use crate::invariants::{Kind, View};
use crate::plan::{Plan, Tuning};
use crate::run::{Class, Failure, Outcome, Run, Verdict};
use crate::schedule::Happening;
use crate::world::World;

/// What an application told its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said<O> {
    /// When, in microseconds since the start.
    pub at: u64,
    /// On which node.
    pub node: u32,
    /// In which life of it, from 1.
    pub life: u64,
    /// What.
    pub output: O,
}

type Check<A> = Box<dyn Fn(&Nodes<'_, A>) -> Result<(), String>>;

struct Own<A: Application> {
    name: &'static str,
    kind: Kind,
    check: Check<A>,
}

/// A run to be made.
pub struct Play<A: Application> {
    plan: Plan,
    birth: Rc<dyn Fn(&Birth) -> A>,
    inputs: Vec<A::Input>,
    own: Vec<Own<A>>,
}

impl<A: Application> Play<A> {
    /// A run of a plan in which every node has the application that `birth` makes for it, anew in each life.
    pub fn new(plan: Plan, birth: impl Fn(&Birth) -> A + 'static) -> Self {
        let mut plan = plan;
        let is_own_work = |name: &str| matches!(name, "broadcast" | "send" | "write" | "remove" | "change");
        plan.schedule.retain(|entry| !is_own_work(entry.what.name()));
        plan.required.retain(|(name, _)| !is_own_work(name));
        // Measured of that work.
        plan.expectations.retain(|expectation| !matches!(expectation.metric.as_ref(), "delivery" | "keys" | "state_equal"));
        Play { plan, birth: Rc::new(birth), inputs: Vec::new(), own: Vec::new() }
    }

    /// Tells the application of a node something at a moment, in microseconds since the start. If the node is not alive then, nobody is told; the metric `tell` counts those who were.
    pub fn tell(mut self, at: u64, node: u32, input: A::Input) -> Self {
        self.plan.schedule.push(at, Happening::Tell { node, input: self.inputs.len() as u32 });
        self.inputs.push(input);
        self
    }

    /// Something that must hold after each second. If it does not, the run ends with a failure of safety.
    pub fn always(mut self, name: &'static str, check: impl Fn(&Nodes<'_, A>) -> Result<(), String> + 'static) -> Self {
        self.own.push(Own { name, kind: Kind::Always, check: Box::new(check) });
        self
    }

    /// Something that must come to hold once the network is whole and quiet, within the time that the plan gives; else the run ends with a failure of liveness.
    pub fn eventually(mut self, name: &'static str, check: impl Fn(&Nodes<'_, A>) -> Result<(), String> + 'static) -> Self {
        self.own.push(Own { name, kind: Kind::Eventually, check: Box::new(check) });
        self
    }

    /// The plan, as it will be played.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Plays it to its end.
    ///
    /// # Errors
    ///
    /// What is wrong with the parameters of the nodes, in words, or a node that the plan does not have. Nothing has run then.
    pub fn run(mut self) -> Result<Played<A>, String> {
        self.plan.schedule.sort();
        let nodes = self.plan.setup.nodes;
        if let Some(node) = self.plan.schedule.entries().iter().filter_map(|entry| entry.what.node()).find(|node| *node >= nodes) {
            return Err(format!("there is no node {node} among {nodes}"));
        }
        let real = RealNode::params(&self.plan.tuning)?;
        let inputs = Rc::new(RefCell::new(self.inputs.into_iter().map(Some).collect()));
        let mut run = Run::<Hosted<A>>::with(&self.plan, Params { real, birth: self.birth, inputs });
        for second in 0.. {
            let goes_on = run.second(second, &mut |_| {});
            let is_over = run.world.now() >= self.plan.ends_at();
            let broken = |kind| {
                let nodes = Nodes { world: &run.world };
                self.own.iter().filter(|own| own.kind == kind).find_map(|own| Some((own.name, (own.check)(&nodes).err()?)))
            };
            let (class, broken) = match broken(Kind::Always) {
                Some(broken) => (Class::Safety, Some(broken)),
                None if goes_on => continue,
                None => (Class::Liveness, broken(Kind::Eventually)),
            };
            if run.failure.is_some() || broken.is_none() {
                break;
            }
            if let Some((what, detail)) = broken.filter(|_| class == Class::Safety || is_over) {
                run.failure = Some(Failure { class, what: what.to_owned(), at: run.world.now(), node: None, detail });
                break;
            }
        }
        let (mut outcome, world) = run.end();
        let nodes = Nodes { world: &world };
        outcome.invariants.extend(self.own.iter().map(|own| Verdict {
            name: own.name,
            kind: own.kind.name(),
            ok: match own.kind {
                Kind::Always => outcome.failure.as_ref().is_none_or(|failure| failure.what != own.name),
                Kind::Eventually => (own.check)(&nodes).is_ok(),
            },
        }));
        Ok(Played { outcome, world })
    }
}

/// A run that was made.
pub struct Played<A: Application> {
    /// What it gave.
    pub outcome: Outcome,
    world: World<Hosted<A>>,
}

impl<A: Application> Played<A> {
    /// The nodes as they are in the end.
    pub fn nodes(&self) -> Nodes<'_, A> {
        Nodes { world: &self.world }
    }
}

/// The nodes of a run and their applications.
pub struct Nodes<'a, A: Application> {
    world: &'a World<Hosted<A>>,
}

impl<'a, A: Application> Nodes<'a, A> {
    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        self.world.now()
    }

    /// The nodes that are alive and have not said goodbye.
    pub fn alive(&self) -> impl Iterator<Item = u32> + use<'a, A> {
        let world = self.world;
        (0..world.nodes()).filter(move |node| world.is_alive(*node))
    }

    /// The application of a living node.
    pub fn app(&self, node: u32) -> Option<&'a A> {
        Some(self.world.host(node)?.runner.app())
    }

    /// The value of a key of the replicated state, as a living node has it.
    pub fn value(&self, node: u32, key: &str) -> Option<&'a Bytes> {
        self.world.host(node)?.value(key)
    }

    /// What all applications told their owners so far, in order.
    pub fn outputs(&self) -> &'a [Said<A::Output>] {
        &self.world.scratch().said
    }

    /// What the application of a node told its owner so far, in all its lives.
    pub fn outputs_of(&self, node: u32) -> impl Iterator<Item = &'a A::Output> + use<'a, A> {
        self.outputs().iter().filter(move |said| said.node == node).map(|said| &said.output)
    }
}

/// A real node with an application beside it.
struct Hosted<A: Application> {
    real: RealNode,
    runner: Runner<A>,
    inputs: Inputs<A>,
    index: u32,
    life: u64,
    is_started: bool,
}

/// What applications will be told, until they are.
type Inputs<A> = Rc<RefCell<Vec<Option<<A as Application>::Input>>>>;

struct Params<A: Application> {
    real: RealParams,
    birth: Rc<dyn Fn(&Birth) -> A>,
    inputs: Inputs<A>,
}

struct Scratch<A: Application> {
    actions: Vec<Action>,
    said: Vec<Said<A::Output>>,
}

impl<A: Application> Default for Scratch<A> {
    fn default() -> Self {
        Scratch { actions: Vec::new(), said: Vec::new() }
    }
}

impl<A: Application> Hosted<A> {
    /// Lets the node or the application act, shows the application what was decided, and carries that out.
    fn act(
        &mut self,
        now: Now,
        scratch: &mut Scratch<A>,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Runner<A>, &mut Node, &mut Vec<Action>),
    ) {
        let Hosted { real, runner, is_started, .. } = self;
        real.act(now, &mut scratch.actions, effects, |node, actions| {
            if !std::mem::replace(is_started, true) {
                runner.start(node, now, actions);
            }
            act(runner, node, actions);
            runner.react(node, now, actions);
            // The application has them; the world knows nothing of what they are.
            actions.retain(|action| !matches!(action, Action::Deliver(_)));
        });
        let (at, node, life) = (now.time.as_nanos() / 1_000, self.index, self.life);
        scratch.said.extend(self.runner.take_outputs().map(|output| Said { at, node, life, output }));
    }
}

impl<A: Application> Host for Hosted<A> {
    type Params = Params<A>;
    type Scratch = Scratch<A>;

    fn params(_: &Tuning) -> Result<Params<A>, String> {
        Err("what makes an application is not among the parameters of a node: it is given to `Play::new`".to_owned())
    }

    fn neighbors_max(params: &Params<A>, nodes: u32) -> usize {
        RealNode::neighbors_max(&params.real, nodes)
    }

    fn start(birth: &Birth, params: &Params<A>, now: Now) -> Self {
        Hosted {
            real: RealNode::start(birth, &params.real, now),
            runner: Runner::new((params.birth)(birth), birth.seed),
            inputs: params.inputs.clone(),
            index: birth.index,
            life: birth.incarnation,
            is_started: false,
        }
    }

    fn handle(&mut self, input: Input, now: Now, scratch: &mut Scratch<A>, effects: &mut Vec<Effect>) {
        if let Input::DeadlineReached = input {
            self.act(now, scratch, effects, |runner, node, actions| {
                if node.next_deadline().is_some_and(|at| at <= now.time) {
                    node.handle(node::Input::DeadlineReached, now, actions);
                }
                runner.on_deadline(node, now, actions);
            });
        } else if let Some(input) = self.real.input_of(input, effects) {
            self.act(now, scratch, effects, |_, node, actions| node.handle(input, now, actions));
        }
    }

    fn keep(&mut self, disk: Disk, sync: Duration, now: Now, scratch: &mut Scratch<A>, effects: &mut Vec<Effect>) {
        self.real.keep(disk, sync, now, &mut scratch.actions, effects);
    }

    fn give_disk(&mut self, in_order: bool, now: Now) -> Option<Disk> {
        self.real.give_disk(in_order, now)
    }

    fn next_deadline(&self) -> Option<Time> {
        if !self.is_started {
            return Some(Time::ZERO);
        }
        [self.real.next_deadline(), self.runner.next_deadline()].into_iter().flatten().min()
    }

    fn tell(&mut self, input: u32, now: Now, scratch: &mut Scratch<A>, effects: &mut Vec<Effect>) -> bool {
        let Some(input) = self.inputs.borrow_mut().get_mut(input as usize).and_then(Option::take) else { return false };
        self.act(now, scratch, effects, |runner, node, actions| runner.tell(input, node, now, actions));
        true
    }

    fn leave(&mut self, now: Now, scratch: &mut Scratch<A>, effects: &mut Vec<Effect>) {
        self.act(now, scratch, effects, |_, node, actions| node.leave(now, actions));
    }

    // The application alone does such things here.

    fn broadcast(&mut self, _: Bytes, _: Now, _: &mut Scratch<A>, _: &mut Vec<Effect>) -> bool {
        false
    }

    fn write(&mut self, _: Vec<(String, Op)>, _: Now, _: &mut Scratch<A>, _: &mut Vec<Effect>) -> Option<Stamp> {
        None
    }

    fn visit_neighbors(&self, visit: &mut dyn FnMut(PeerId)) {
        self.real.visit_neighbors(visit);
    }

    fn visit_remembered(&self, visit: &mut dyn FnMut(SocketAddr)) {
        self.real.visit_remembered(visit);
    }

    fn visit_members(&self, visit: &mut dyn FnMut(PeerId)) {
        self.real.visit_members(visit);
    }

    fn value(&self, key: &str) -> Option<&Bytes> {
        self.real.value(key)
    }

    fn read(&self, key: &str) -> Option<Value> {
        self.real.read(key)
    }

    fn state_digest(&self) -> u128 {
        self.real.state_digest()
    }

    fn state_len(&self) -> usize {
        self.real.state_len()
    }

    fn state_bytes(&self) -> usize {
        self.real.state_bytes()
    }

    fn tally(&self) -> Tally {
        self.real.tally()
    }
}
