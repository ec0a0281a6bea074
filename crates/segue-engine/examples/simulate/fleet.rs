//! The agents: who they are, and how long they work.

use crate::setting::Setting;
use parking_lot::Mutex;
use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::ids::{HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{
    Address, Letter, LetterBody, Notice, TaskRequest, TaskResponse, WIRE_VERSION,
};
use segue_core::outcome::Outcome;
use segue_core::payload::Payload;
use segue_core::ports::{Clock, WorkBus};
use segue_core::state::OutcomeState;
use segue_core::task::{ErrorClass, TaskError};
use segue_engine::LocalHost;
use segue_testkit::faults::Dice;
use segue_testkit::simulator::SimClock;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Letters that a node takes from its queue at a time.
const TAKE_MAX: usize = 64;
/// How wide the times are spread: about one attempt in six takes more than this power of e times the median.
const SPREAD: f64 = 0.8;

/// A node with its agents.
#[derive(Clone)]
pub struct Node {
    /// Its host.
    pub local: LocalHost,
    /// Its agents.
    pub agents: Vec<AgentSpec>,
}

/// The nodes of a fleet. Agents that share a name stand on different nodes, as far as there are any.
pub fn nodes(setting: &Setting, dice: &mut Dice) -> Vec<Node> {
    let nodes = setting.agents.div_ceil(setting.agents_per_node).max(1);
    let names = names(setting);
    let mut all: Vec<Node> = (0..nodes)
        .map(|_| Node {
            local: LocalHost { host: HostId(id(dice)), incarnation: Incarnation(id(dice)) },
            agents: Vec::new(),
        })
        .collect();
    for number in 0..setting.agents {
        let role = number % names;
        let able = |name: String, cost_usd| Capability {
            name: name.into(),
            cost_usd,
            ..Capability::default()
        };
        let spec = AgentSpec {
            instance: InstanceId(id(dice)),
            name: name_of(role).into(),
            kind: AgentKind::Builtin,
            description: "".into(),
            capabilities: Arc::from([
                able(skill_of(role), (role % 7) as f64),
                able("anything".to_owned(), (role % 3) as f64),
            ]),
            max_concurrency: setting.slots,
            delegates: false,
        };
        all[(number % nodes) as usize].agents.push(spec);
    }
    all
}

/// Names of agents in all.
pub fn names(setting: &Setting) -> u64 {
    (setting.agents / setting.roles).max(1)
}

/// The name of a role.
pub fn name_of(role: u64) -> String {
    format!("role-{role}")
}

/// What a role is able to do: three roles share a capability.
pub fn skill_of(role: u64) -> String {
    format!("skill-{}", role / 3)
}

fn id(dice: &mut Dice) -> Uuid {
    Uuid::from_u64_pair(dice.number(), dice.number())
}

/// What every node needs for its work.
pub struct Workplace {
    pub setting: Setting,
    pub bus: Arc<dyn WorkBus>,
    pub clock: Arc<SimClock>,
    pub dice: Mutex<Dice>,
}

impl Workplace {
    /// Takes what comes to a host, and works on each by itself.
    pub async fn host(self: Arc<Self>, host: HostId) {
        let Ok(mut queue) = self.bus.consume(Address::Host(host)).await else { return };
        while let Ok(deliveries) = queue.next(TAKE_MAX).await {
            let tokens = deliveries.iter().map(|delivery| delivery.token).collect();
            let _ = queue.ack(tokens).await;
            for delivery in deliveries {
                let Some(task) = delivery.letter.task else { continue };
                if let LetterBody::TaskRequest(request) = delivery.letter.body {
                    tokio::spawn(self.clone().work(task, *request));
                }
            }
        }
    }

    async fn work(self: Arc<Self>, task: TaskId, request: TaskRequest) {
        let (takes, fails) = self.draw();
        let began = self.clock.now();
        let notice = Notice::Started {
            attempt: request.attempt,
            secret: request.secret.clone(),
            at: began,
            process: None,
        };
        self.say(task, LetterBody::Event(notice)).await;
        tokio::time::sleep(takes).await;
        let outcome = if fails {
            let error = TaskError::new(ErrorClass::RateLimited, "the model is busy");
            Outcome::Fail { error, retry_after_ms: None }
        } else {
            Outcome::Complete { output: Payload::null() }
        };
        let response = TaskResponse {
            attempt: request.attempt,
            secret: request.secret,
            started_at: Some(began),
            process: None,
            outcome,
            state: OutcomeState::default(),
            usage: None,
            ended: Vec::new(),
        };
        self.say(task, LetterBody::TaskResponse(Box::new(response))).await;
    }

    /// How long an attempt takes, and whether it fails.
    fn draw(&self) -> (Duration, bool) {
        let mut dice = self.dice.lock();
        let normal = normal(&mut dice);
        let takes_ms = self.setting.work_ms as f64 * (SPREAD * normal).exp();
        (Duration::from_millis(takes_ms as u64), dice.per_mille(self.setting.fail))
    }

    async fn say(&self, task: TaskId, body: LetterBody) {
        let letter = Letter {
            seq: 0,
            version: WIRE_VERSION,
            from: "host".into(),
            to: Address::Engine,
            task: Some(task),
            reply_to: None,
            correlation: None,
            causation: None,
            traceparent: None,
            hops: 0,
            at: self.clock.now(),
            body,
        };
        let _ = self.bus.publish(vec![letter]).await;
    }
}

/// What an attempt takes on average: the mean of the distribution.
pub fn work_mean_ms(setting: &Setting) -> f64 {
    setting.work_ms as f64 * (SPREAD * SPREAD / 2.0).exp()
}

/// A number between 0 and 1, neither included.
pub fn fraction(dice: &mut Dice) -> f64 {
    ((dice.number() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// From the normal distribution, after Box and Muller.
fn normal(dice: &mut Dice) -> f64 {
    (-2.0 * fraction(dice).ln()).sqrt() * (std::f64::consts::TAU * fraction(dice)).cos()
}
