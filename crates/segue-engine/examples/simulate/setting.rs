//! What a simulation is made of, from the command line.

use serde::{Deserialize, Serialize};

/// What the words of the command line mean.
pub const HELP: &str = "\
Simulates the dispatch of many agents in virtual time. Usage: cargo xtask simulate [ARGS]

The engines, the rules and the in-memory store are the real ones; what a commit, the bus and the work of an agent take is a model.

  --agents A,B,..     fleets to simulate, one after another [100,1000,10000]
  --agents-per-node N agents of a node [10]
  --engines N         engines that take in, dispatch and time out; the other nodes only host [4]
  --tasks-per-agent N tasks of a fleet, by its size [12]
  --load PERCENT      work submitted for each second, of what the fleet can do [90]
  --slots N           slots of an agent [1]
  --roles N           agents that share a name; each tenth task may go to anybody [10]
  --work-ms N         what an attempt takes at the median; they are spread log-normally [20000]
  --fail PERMILLE     attempts that fail and are retried [10]
  --commit-ms N       what a commit takes, whatever is in it [3]
  --row-us N          what each row of a commit takes besides [20]
  --lanes N           commits on their way at a time [2]
  --bus-ms N          what a publish takes until it is confirmed [2]
  --seed N            from what arrivals, work and failures are drawn [another one each time]
  --json              one object instead of tables
";

/// One simulation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Agent instances.
    pub agents: u64,
    /// Agents of a node.
    pub agents_per_node: u64,
    /// Engines.
    pub engines: u64,
    /// Tasks for each agent.
    pub tasks_per_agent: u64,
    /// Work for each second, in percent of what the fleet can do.
    pub load: u64,
    /// Slots of an agent.
    pub slots: u32,
    /// Agents that share a name.
    pub roles: u64,
    /// Median of the time that an attempt takes.
    pub work_ms: u64,
    /// Attempts in a thousand that fail.
    pub fail: u64,
    /// A commit takes at least this.
    pub commit_ms: u64,
    /// And this for each row.
    pub row_us: u64,
    /// Commits at a time.
    pub lanes: u64,
    /// A publish takes this.
    pub bus_ms: u64,
    /// Everything is drawn from it.
    pub seed: u64,
}

impl Setting {
    /// The arguments that ask for this one.
    pub fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--agents", self.agents),
            ("--agents-per-node", self.agents_per_node),
            ("--engines", self.engines),
            ("--tasks-per-agent", self.tasks_per_agent),
            ("--load", self.load),
            ("--slots", self.slots.into()),
            ("--roles", self.roles),
            ("--work-ms", self.work_ms),
            ("--fail", self.fail),
            ("--commit-ms", self.commit_ms),
            ("--row-us", self.row_us),
            ("--lanes", self.lanes),
            ("--bus-ms", self.bus_ms),
            ("--seed", self.seed),
        ];
        numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]).collect()
    }
}

/// What the command line asks for.
pub struct Asked {
    /// The fleets.
    pub fleets: Vec<u64>,
    /// All but the size of the fleet.
    pub setting: Setting,
    /// One object instead of tables.
    pub json: bool,
}

impl Asked {
    /// Reads the arguments. `Ok(None)` asks for help.
    pub fn read(mut args: impl Iterator<Item = String>) -> Result<Option<Asked>, String> {
        let mut asked = Asked {
            fleets: vec![100, 1_000, 10_000],
            setting: Setting {
                agents: 0,
                agents_per_node: 10,
                engines: 4,
                tasks_per_agent: 12,
                load: 90,
                slots: 1,
                roles: 10,
                work_ms: 20_000,
                fail: 10,
                commit_ms: 3,
                row_us: 20,
                lanes: 2,
                bus_ms: 2,
                seed: u64::from(uuid::Uuid::new_v4().as_fields().0),
            },
            json: false,
        };
        while let Some(name) = args.next() {
            let setting = &mut asked.setting;
            let place = match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--json" => {
                    asked.json = true;
                    continue;
                }
                "--agents" => {
                    let value = args.next().unwrap_or_default();
                    let fleets: Result<_, _> =
                        value.split(',').map(|word| number(&name, word)).collect();
                    asked.fleets = fleets?;
                    continue;
                }
                "--slots" => {
                    setting.slots = number(&name, &args.next().unwrap_or_default())? as u32;
                    continue;
                }
                "--fail" => {
                    let value = args.next().unwrap_or_default();
                    setting.fail =
                        value.parse().map_err(|_| format!("{name} {value}: no number"))?;
                    continue;
                }
                "--agents-per-node" => &mut setting.agents_per_node,
                "--engines" => &mut setting.engines,
                "--tasks-per-agent" => &mut setting.tasks_per_agent,
                "--load" => &mut setting.load,
                "--roles" => &mut setting.roles,
                "--work-ms" => &mut setting.work_ms,
                "--commit-ms" => &mut setting.commit_ms,
                "--row-us" => &mut setting.row_us,
                "--lanes" => &mut setting.lanes,
                "--bus-ms" => &mut setting.bus_ms,
                "--seed" => &mut setting.seed,
                _ => return Err(format!("`{name}` is not known; --help lists what there is")),
            };
            *place = number(&name, &args.next().unwrap_or_default())?;
        }
        Ok(Some(asked))
    }
}

fn number(name: &str, word: &str) -> Result<u64, String> {
    match word.trim().parse() {
        Ok(number @ 1..=u64::MAX) => Ok(number),
        _ => Err(format!("{name} wants a number of at least 1, not `{word}`")),
    }
}
