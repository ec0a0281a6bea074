//! Who is defined where: what a node hosts, or would host.

use crate::agents::{self, Team};
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::Project;
use anyhow::Result;
use segue_agent::claude::Severity;
use segue_agent::host::Hosted;
use segue_agent::process::Launcher;
use segue_core::agent::AgentSpec;
use std::path::{Path, PathBuf};

/// Who is defined where.
#[derive(Debug, Default)]
pub struct Roster {
    /// The agents.
    pub members: Vec<Member>,
    /// What is odd about the files that define them, notes left out.
    pub notices: Vec<String>,
    /// The folder of the team that takes part, if one was named.
    pub team: Option<PathBuf>,
    /// Why the files could not be read, where they could not.
    pub broken: Option<String>,
}

/// An agent that is defined.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub spec: AgentSpec,
    /// The file that defines it, as people would write it.
    pub source: String,
}

impl Roster {
    /// Loads everybody of a project and, where one is named, of a team's folder; with what runs them.
    ///
    /// # Errors
    /// When a `segue.toml` is wrong.
    pub fn load(project: &Project, team_dir: Option<&Path>) -> Result<(Roster, Vec<Hosted>)> {
        let team = Team::load(&project.dir, team_dir)?;
        let hosted = agents::hosted(&team, project, &Launcher::this_binary())?;
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let members = hosted
            .iter()
            .map(|agent| Member {
                spec: agent.spec.clone(),
                source: team
                    .source(&agent.spec.name)
                    .map(|path| shown(&path, &project.dir, home.as_deref()))
                    .unwrap_or_default(),
            })
            .collect();
        let notices = team
            .notices
            .iter()
            .filter(|notice| notice.severity != Severity::Note)
            .map(ToString::to_string)
            .collect();
        let team = team_dir.and_then(|dir| dir.canonicalize().ok());
        Ok((Roster { members, notices, team, broken: None }, hosted))
    }

    /// Everybody whom the node of a project hosts: of a cluster's node those that its settings choose.
    ///
    /// # Errors
    /// When a `segue.toml` is wrong, or does not define one that is chosen.
    pub fn of_node(project: &Project, team_dir: Option<&Path>) -> Outcome<(Roster, Vec<Hosted>)> {
        let (mut roster, hosted) = Roster::load(project, team_dir).code(Exit::Usage)?;
        let wanted = project.cluster.as_ref().and_then(|it| it.node.agents.as_deref());
        let hosted = chosen(hosted, wanted)?;
        if let Some(wanted) = wanted {
            roster.members.retain(|member| wanted.iter().any(|name| *member.spec.name == **name));
        }
        Ok((roster, hosted))
    }

    /// The same for whoever only looks: a file that is wrong is no reason not to show the tasks.
    pub fn look(project: &Project, team_dir: Option<&Path>) -> Roster {
        match Roster::load(project, team_dir) {
            Ok((roster, _)) => roster,
            Err(error) => Roster { broken: Some(format!("{error:#}")), ..Roster::default() },
        }
    }

    /// The file that defines this agent.
    pub fn source(&self, name: &str) -> Option<String> {
        let member = self.members.iter().find(|member| member.spec.name.as_ref() == name)?;
        Some(member.source.clone())
    }
}

/// The agents that are wanted, of those that are defined here.
pub fn chosen(hosted: Vec<Hosted>, wanted: Option<&[String]>) -> Outcome<Vec<Hosted>> {
    let Some(wanted) = wanted else { return Ok(hosted) };
    let is_there = |name: &String| hosted.iter().any(|agent| *agent.spec.name == **name);
    if let Some(missing) = wanted.iter().find(|name| !is_there(name)) {
        let names: Vec<&str> = hosted.iter().map(|agent| &*agent.spec.name).collect();
        let message = format!("no agent `{missing}` is defined here");
        return Err(Failure::usage(message).hint(match names.is_empty() {
            true => "define agents in segue.toml, or name a team with --team".to_owned(),
            false => format!("there are {}", names.join(", ")),
        }));
    }
    let is_wanted = |agent: &Hosted| wanted.iter().any(|name| *agent.spec.name == **name);
    Ok(hosted.into_iter().filter(is_wanted).collect())
}

/// A path as people would write it: relative to the project, or to their home.
fn shown(path: &Path, project: &Path, home: Option<&Path>) -> String {
    if let Ok(rest) = path.strip_prefix(project) {
        return rest.display().to_string();
    }
    if let Some(rest) = home.and_then(|home| path.strip_prefix(home).ok()) {
        return format!("~/{}", rest.display());
    }
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_relative_to_the_project_or_to_home() {
        let of = |path: &str| shown(Path::new(path), Path::new("/h/a/p"), Some(Path::new("/h/a")));
        assert_eq!(of("/h/a/p/.claude/agents/x.md"), ".claude/agents/x.md");
        assert_eq!(of("/h/a/.claude/agents/x.md"), "~/.claude/agents/x.md");
        assert_eq!(of("/srv/team/segue.toml"), "/srv/team/segue.toml");
    }
}
