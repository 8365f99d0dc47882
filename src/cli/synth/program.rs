//! Which program is meant, with which values: `WORKLOAD`, `--preset`, `--config`, `--NAME VALUE`,
//! `--param NAME=VALUE`.
//!
//! Each workload has parameters of its own. They become arguments of the command line once its name
//! is known, so that its `--help` shows them, and a misspelt one is found, as with any other argument.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

use super::config;
use crate::workload::{self, Parameters, Workload, WorkloadError, own::Own, programs::Entry};

/// What is typed of the program.
#[derive(Debug, Args)]
pub(in crate::cli) struct ProgramArgs {
    /// The program; `fragsim synth --list` shows all, `fragsim synth WORKLOAD --help` its parameters
    #[arg(value_name = "WORKLOAD")]
    pub workload: Option<String>,
    /// Start from the values of a well-known size
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Read the program from a file: a workload and its values, or one of your own
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// A parameter; `--layers 24` is the same as `-p layers=24`
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair, allow_hyphen_values = true)]
    pub param: Vec<(String, String)>,
    /// Filled from the arguments that are the workload's own.
    #[arg(skip)]
    pub own: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write it as NAME=VALUE, such as layers=24".into()),
    }
}

/// A program with its values.
pub(in crate::cli) struct Named {
    /// What it is called.
    pub(in crate::cli) name: String,
    pub(in crate::cli) program: Box<dyn Workload>,
    /// Its values that differ from the defaults.
    pub(in crate::cli) changed: Vec<(String, String)>,
}

impl ProgramArgs {
    /// The program that is meant. Later values win: preset, file, command line.
    pub(in crate::cli) fn program(&self) -> anyhow::Result<Named> {
        let read = self.config.as_deref().map(config::read).transpose()?;
        let file = || self.config.as_deref().unwrap_or(std::path::Path::new("-")).display();
        if let Some(config::Config::Own(own)) = read {
            if let Some(workload) = &self.workload {
                bail!("{}: it is a program of your own; leave '{workload}' out", file());
            }
            return self.own_program(own);
        }
        let Some(config::Config::Workload(file_values)) = read else {
            let Some(workload) = &self.workload else {
                bail!(
                    "name a workload, or a file with --config; fragsim synth --list shows all workloads"
                );
            };
            return self.catalogued(workload, self.preset.as_deref(), &[]);
        };
        let workload = match (&self.workload, &file_values.workload) {
            (Some(typed), Some(named)) if typed != named => {
                bail!("{}: it is about '{named}', not '{typed}'", file());
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => bail!("{}: it names no workload: workload = \"train\"", file()),
        };
        let preset = self.preset.as_deref().or(file_values.preset.as_deref());
        self.catalogued(workload, preset, &file_values.parameters)
            .with_context(|| file().to_string())
    }

    fn catalogued(
        &self,
        workload: &str,
        preset: Option<&str>,
        values: &[(String, String)],
    ) -> anyhow::Result<Named> {
        let entry = workload::find(workload)?;
        let mut program = match preset {
            Some(preset) => entry.preset(preset)?,
            None => (entry.make)(),
        };
        for (name, value) in values.iter().chain(&self.own).chain(&self.param) {
            if name == "seed" && !has(program.as_ref(), name) {
                crate::cli::output::say(&format!(
                    "{workload} draws nothing at random: the seed changes nothing"
                ));
                continue;
            }
            workload::set(program.as_mut(), name, value)?;
        }
        let defaults = (entry.make)().values();
        let changed = program.values().into_iter().filter(|value| !defaults.contains(value));
        let changed = changed.map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Named { name: entry.name.to_owned(), program, changed })
    }

    fn own_program(&self, mut own: Own) -> anyhow::Result<Named> {
        if let Some(preset) = &self.preset {
            bail!("preset: a program of your own has none, so not '{preset}'");
        }
        for (name, value) in self.own.iter().chain(&self.param) {
            own.set(name, value)?;
        }
        let changed = self.param.clone();
        Ok(Named { name: own.name().to_owned(), program: Box::new(own), changed })
    }
}

fn has(program: &dyn Workload, name: &str) -> bool {
    program.parameters().iter().any(|parameter| parameter.name == name)
}

/// The verbs that take a workload.
const VERBS: [&str; 2] = ["synth", "estimate"];

/// The command line with the parameters of the workload that `args` name, if they name one.
///
/// # Errors
/// When they name one that is not known.
pub(in crate::cli) fn with_parameters(
    command: Command,
    args: &[OsString],
) -> Result<Command, WorkloadError> {
    let Some((verb, name)) = named(&command, args) else { return Ok(command) };
    let entry = workload::find(&name)?;
    Ok(command.mut_subcommand(verb, |sub| add_parameters(sub, entry)))
}

/// The verb and the workload behind it: the first argument that is no option and no option's value.
fn named(command: &Command, args: &[OsString]) -> Option<(&'static str, String)> {
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy());
    let verb = args.find_map(|arg| VERBS.into_iter().find(|verb| *verb == arg))?;
    let sub = command.find_subcommand(verb)?;
    let takes_value = |option: &str| {
        let options = sub.get_arguments().chain(command.get_arguments());
        options.filter(|arg| arg.get_action().takes_values()).any(|arg| {
            let is_long = option.strip_prefix("--").is_some_and(|n| Some(n) == arg.get_long());
            let is_short = option
                .strip_prefix('-')
                .is_some_and(|n| arg.get_short().is_some_and(|short| n == short.to_string()));
            is_long || is_short
        })
    };
    loop {
        let arg = args.next()?;
        if arg == "--" {
            return args.next().map(|name| (verb, name.into_owned()));
        }
        if !arg.starts_with('-') || arg == "-" {
            return Some((verb, arg.into_owned()));
        }
        if takes_value(&arg) {
            args.next();
        }
    }
}

/// The heading of the parameters in help.
const HEADING: &str = "Parameters";

fn add_parameters(command: Command, entry: &'static Entry) -> Command {
    let presets: Vec<&str> = entry.presets.iter().map(|preset| preset.name).collect();
    let mut about = format!("{}: {}", entry.name, entry.about);
    if !presets.is_empty() {
        about = format!("{about}\n\nPresets: {}", presets.join(", "));
    }
    let mut command = command.about(about.clone()).long_about(about);
    let mut by_param = Vec::new();
    for parameter in (entry.make)().parameters() {
        let long = parameter.name.replace('_', "-");
        let is_known = |arg: &Arg| arg.get_long() == Some(long.as_str());
        // One that shares its name with an option of the verb is given with -p.
        if command.get_arguments().any(is_known) || ["color", "help"].contains(&parameter.name) {
            by_param.push(format!("-p {}=VALUE", parameter.name));
            continue;
        }
        let about = parameter.about.trim_end_matches('.');
        let help = format!("{about} [{}; default: {}]", parameter.kind, parameter.default);
        let arg = Arg::new(id(parameter.name))
            .value_name("VALUE")
            .help(help)
            .help_heading(HEADING)
            .action(ArgAction::Append)
            .allow_hyphen_values(true);
        let arg = match long == parameter.name {
            true => arg.long(long),
            false => arg.long(long).alias(parameter.name),
        };
        command = command.arg(arg);
    }
    if by_param.is_empty() {
        return command;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command.after_help(format!("Also parameters: {}\n\n{after}", by_param.join(", ")))
}

/// What the argument of a parameter is called within clap.
fn id(parameter: &str) -> String {
    format!("parameter {parameter}")
}

/// The values that were given as arguments of their own.
pub(in crate::cli) fn own_values(matches: &ArgMatches, workload: &str) -> Vec<(String, String)> {
    let Ok(entry) = workload::find(workload) else { return Vec::new() };
    let mut values = Vec::new();
    for parameter in (entry.make)().parameters() {
        let given = matches.try_get_many::<String>(&id(parameter.name)).ok().flatten();
        values.extend(
            given.into_iter().flatten().map(|value| (parameter.name.to_owned(), value.clone())),
        );
    }
    values
}

/// The workload itself must be right before its values are looked at.
pub(in crate::cli) fn check(named: &Named) -> anyhow::Result<()> {
    named.program.check().map_err(|error| anyhow!("{}: {error}", named.name))
}
