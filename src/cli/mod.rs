//! Floor 6: the command line. The only place that prints, and the only one that knows clap and anyhow.
//!
//! Exit status: 0 done and all well, 1 the answer is "differs" or "out of memory", 2 the input or the
//! command line is unusable. A closed pipe is no error.

mod args;
mod compare;
mod explain;
mod file;
mod fit;
mod inspect;
mod lesson;
mod load;
mod many;
mod output;
mod pack;
mod pictures;
mod plan;
mod progress;
mod replay;
mod stacks;
mod sweep;
mod synth;
mod tune;
mod verify;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use self::{
    args::{Cli, Command},
    output::Output,
};

/// What a verb came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// All well.
    Yes,
    /// It differs, it dies.
    No,
    /// Some of the input is unusable; it was said which.
    Unusable,
}

/// Runs the program on the arguments of the process.
pub fn main() -> ExitCode {
    let cli = match parsed() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let mut output = Output::stdout(cli.color);
    let answer = match &cli.command {
        Command::Verify(args) => verify::run(args, &mut output),
        Command::Replay(args) => replay::run(args, &mut output),
        Command::Inspect(args) => inspect::run(args, &mut output),
        Command::Explain(args) => explain::run(args, &mut output),
        Command::Pack(args) => pack::run(args, &mut output),
        Command::Compare(args) => compare::run(args, &mut output),
        Command::Fit(args) => fit::run(args, &mut output),
        Command::Tune(args) => tune::run(args, &mut output),
        Command::Sweep(args) => sweep::run(args, &mut output),
        Command::Plot(args) => pictures::plot::run(args, &mut output),
        Command::Report(args) => pictures::report::run(args, &mut output),
        Command::Series(args) => pictures::series::run(args),
        Command::Lesson(args) => lesson::run(args, &mut output),
        Command::Synth(args) => synth::run(args, &mut output),
        Command::Estimate(args) => synth::estimate::run(args, &mut output),
    };
    let answer = answer.and_then(|answer| output.flush().map(|()| answer));
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Unusable) => ExitCode::from(2),
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(cli.color, &output::in_words(&error));
            ExitCode::from(2)
        }
    }
}

/// What is typed, or the exit status after help or an error was printed.
fn parsed() -> Result<Cli, ExitCode> {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The workloads bring arguments of their own.
    let command = synth::program::with_parameters(Cli::command(), &args).map_err(|error| {
        output::complain(clap::ColorChoice::Auto, &error.to_string());
        ExitCode::from(2)
    })?;
    typed(command, args).map_err(|error| {
        // Help and version are no errors; clap prints either where it belongs.
        let code = if error.use_stderr() { 2 } else { 0 };
        let _ = error.print();
        ExitCode::from(code)
    })
}

fn typed(mut command: clap::Command, args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = command.try_get_matches_from_mut(args)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let program = match &mut cli.command {
        Command::Synth(args) => &mut args.program,
        Command::Estimate(args) => &mut args.program,
        _ => return Ok(cli),
    };
    if let (Some(workload), Some((_, matches))) = (&program.workload, matches.subcommand()) {
        program.own = synth::program::own_values(matches, workload);
    }
    Ok(cli)
}
