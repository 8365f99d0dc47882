//! The table of synthetic against real, in Markdown.

use std::fmt::Write as _;

use super::{
    bounds::{self, ALLOCATED, ALLOCATED_MEDIAN, ALLOCS, RESERVED, changes, families, median},
    judge::{Run, Verdict},
};

/// The whole report.
pub fn table(runs: &[Run]) -> String {
    let mut text = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = summary(&mut text, runs);
    let _ = medians(&mut text, runs);
    let _ = differences(&mut text, runs);
    let _ = all(&mut text, runs);
    let _ = unmapped(&mut text, runs);
    text
}

const HEAD: &str = "# Synthetic against real

Each row is a recorded run of a real PyTorch 2.11 program beside the workload of `fragsim synth` with the same parameters, replayed
under the same settings and capacity.
Written by `cargo run --release --example truth -- ../shared/data/scenarios -o reports/truth.md`; never edited.

Peaks are those of the whole run, in MiB, real and then how far the synthetic one is off: `=` is equal to the byte.
`allocs` are allocations a step: the mean over the marked steps after the first.
A row ends with what is off by more than it may be: 5 % of allocated, 10 % of reserved, 20 % of allocations a step.

";

fn summary(text: &mut String, runs: &[Run]) -> std::fmt::Result {
    let compared: Vec<&Run> = runs.iter().filter(|run| !run.pairs().is_empty()).collect();
    let equal = |i: usize| {
        compared.iter().filter(|run| run.pairs().iter().all(|pair| pair.off()[i] == 0.0)).count()
    };
    let within = compared.iter().filter(|run| run.faults().is_empty()).count();
    let changes = changes(runs);
    let holding = changes.iter().filter(|c| c.allocated.holds() && c.reserved.holds()).count();
    writeln!(text, "| | |\n| --- | --- |")?;
    writeln!(text, "| runs | {} |", runs.len())?;
    writeln!(text, "| compared | {} |", compared.len())?;
    writeln!(text, "| within all bounds | {within} |")?;
    for (i, what) in ["requested", "allocated", "reserved"].iter().enumerate() {
        writeln!(text, "| peak {what} equal to the byte | {} |", equal(i))?;
    }
    writeln!(text, "| allocations a step equal | {} |", equal(3))?;
    writeln!(
        text,
        "| differences of base and variation that hold | {holding} of {} |",
        changes.len()
    )
}

fn medians(text: &mut String, runs: &[Run]) -> std::fmt::Result {
    writeln!(
        text,
        "\n## Families\n\nThe median of how far the peaks are off, and the worst; bold is more than it may be.\n"
    )?;
    writeln!(
        text,
        "| program | runs | compared | allocated | worst | reserved | worst | allocs | worst |"
    )?;
    writeln!(text, "| --- | --: | --: | --: | --: | --: | --: | --: | --: |")?;
    for (program, runs) in families(runs) {
        let compared = runs.iter().filter(|run| !run.pairs().is_empty()).count();
        write!(text, "| {program} | {} | {compared} |", runs.len())?;
        for i in [1, 2, 3] {
            let off: Vec<f64> =
                runs.iter().flat_map(|run| run.pairs()).map(|pair| pair.off()[i].abs()).collect();
            let worst = off.iter().copied().max_by(f64::total_cmp);
            let part = |value: Option<f64>, bound: f64| match value {
                None => String::new(),
                Some(value) if value > bound => format!("**{}**", percent(value)),
                Some(value) => percent(value),
            };
            let bound = [ALLOCATED, RESERVED, ALLOCS][i - 1];
            let of_median = if i == 1 { ALLOCATED_MEDIAN } else { bound };
            write!(text, " {} | {} |", part(median(off), of_median), part(worst, bound))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn differences(text: &mut String, runs: &[Run]) -> std::fmt::Result {
    writeln!(
        text,
        "\n## Base and variation\n\nWhat a variation changes in the peaks of its base, real and synthetic, in percent of the base's real peak.\n"
    )?;
    writeln!(
        text,
        "| scenario | base | variation | allocated, real | synthetic | reserved, real | synthetic | |"
    )?;
    writeln!(text, "| --- | --- | --- | --: | --: | --: | --: | --- |")?;
    for change in changes(runs) {
        let (a, r) = (change.allocated, change.reserved);
        let fault = if a.holds() && r.holds() { "" } else { "**differs**" };
        let [base, variation] = [change.base, change.variation].map(|run| &run.variation);
        let parts = [a.real, a.synthetic, r.real, r.synthetic].map(signed);
        writeln!(
            text,
            "| {} | {base} | {variation} | {} | {fault} |",
            change.base.scenario,
            parts.join(" | ")
        )?;
    }
    Ok(())
}

fn all(text: &mut String, runs: &[Run]) -> std::fmt::Result {
    writeln!(text, "\n## Every run\n")?;
    writeln!(
        text,
        "| run | workload | requested | off | allocated | off | reserved | off | allocs | off | |"
    )?;
    writeln!(text, "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |")?;
    for run in runs {
        let (name, workload) = (name(run), run.workload.unwrap_or_default());
        match &run.verdict {
            Verdict::Unmapped => {}
            Verdict::Refused(error) => {
                writeln!(text, "| {name} | {workload} | | | | | | | | | **refused: {error}** |")?;
            }
            Verdict::Compared { pairs, oom_step } => {
                for pair in pairs {
                    let device = if pairs.len() > 1 {
                        format!(", device {}", pair.device)
                    } else {
                        String::new()
                    };
                    let (real, off) = (pair.real, pair.off());
                    let mib =
                        |bytes: u64| format!("{:.1}", bounds::float(bytes) / f64::from(1 << 20));
                    let mut faults = pair.faults();
                    if oom_step[0] != oom_step[1] {
                        faults.push("out-of-memory step");
                    }
                    let mut note = match oom_step {
                        [None, None] => String::new(),
                        [a, b] if a == b => format!("out of memory after step {}", a.unwrap_or(0)),
                        [a, b] => format!(
                            "out of memory after step {}, synthetic {}",
                            after(*a),
                            after(*b)
                        ),
                    };
                    if !faults.is_empty() {
                        let space = if note.is_empty() { "" } else { "; " };
                        let _ = write!(note, "{space}**off: {}**", faults.join(", "));
                    }
                    writeln!(
                        text,
                        "| {name}{device} | {workload} | {} | {} | {} | {} | {} | {} | {:.1} | {} | {note} |",
                        mib(real.requested),
                        exact(off[0]),
                        mib(real.allocated),
                        exact(off[1]),
                        mib(real.reserved),
                        exact(off[2]),
                        real.allocs,
                        exact(off[3]),
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn after(step: Option<u64>) -> String {
    step.map_or("none".into(), |step| step.to_string())
}

fn unmapped(text: &mut String, runs: &[Run]) -> std::fmt::Result {
    let unmapped: Vec<&Run> =
        runs.iter().filter(|run| matches!(run.verdict, Verdict::Unmapped)).collect();
    if unmapped.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n## Not mapped\n\nNo workload answers to these {} runs.\n", unmapped.len())?;
    for of_program in families(&unmapped.into_iter().cloned().collect::<Vec<_>>()) {
        let names: Vec<String> = of_program.1.iter().map(|run| name(run)).collect();
        writeln!(text, "- `{}`: {}", of_program.0, names.join(", "))?;
    }
    Ok(())
}

fn name(run: &Run) -> String {
    format!("{} {}", run.scenario, run.variation)
}

fn percent(part: f64) -> String {
    if part == 0.0 { "=".into() } else { format!("{:.2} %", part * 100.0) }
}

fn signed(part: f64) -> String {
    let text = format!("{:+.1} %", part * 100.0);
    if text == "-0.0 %" { "+0.0 %".into() } else { text }
}

/// `=` is equality, not what rounds to it.
fn exact(part: f64) -> String {
    if part == 0.0 { "=".into() } else { format!("{:+.3} %", part * 100.0) }
}
