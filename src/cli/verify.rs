//! `fragsim verify`.

use std::path::Path;

use rayon::prelude::*;

use super::{
    Answer,
    args::{Format, VerifyArgs},
    load::{self, Input},
    output::{Output, in_words},
    progress,
};
use crate::{
    base::{RELEASES, Release},
    models::pytorch::conf::AllocConf,
    report::{
        to_csv, to_json,
        verify::{FileDocument, VerifyDocument, file_text, summary_text},
    },
    study::verify::{Verdict, VerifyOptions, refused_settings, verify_case, verify_trace},
    trace::Trace,
};

pub(super) fn run(args: &VerifyArgs, output: &mut Output) -> anyhow::Result<Answer> {
    check_conf(args)?;
    let bar = progress::files(args.files.len());
    let file = |path: &std::path::PathBuf| {
        let document = verify_file(path, args);
        bar.inc(1);
        document
    };
    let all = || args.files.par_iter().map(file).collect();
    let files: Vec<FileDocument> = match args.files.len() {
        1 => progress::during("verifying", all),
        _ => all(),
    };
    bar.finish_and_clear();
    let document = VerifyDocument { files };
    match args.format {
        Format::Json => output.line(&to_json(&document))?,
        Format::Csv => output.write(&to_csv(&document, "files")?)?,
        Format::Text => {
            for file in document.files.iter().filter(|file| !args.quiet || !file.exact) {
                output.write(&file_text(file))?;
            }
            if document.files.len() > 1 || args.quiet {
                output.line(&summary_text(&document))?;
            }
        }
    }
    Ok(if document.files.iter().any(|file| file.error.is_some()) {
        Answer::Unusable
    } else if document.files.iter().all(|file| file.exact) {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// Settings that are typed must be ones that some release takes, before anything is compared.
fn check_conf(args: &VerifyArgs) -> anyhow::Result<()> {
    let Some(conf) = &args.conf else { return Ok(()) };
    let parse = |release| AllocConf::from_string(release, conf).map(|_| ());
    match args.torch {
        Some(release) => parse(release)?,
        None if RELEASES.into_iter().any(|release| parse(release).is_ok()) => {}
        None => parse(Release::NEWEST)?,
    }
    Ok(())
}

fn verify_file(path: &Path, args: &VerifyArgs) -> FileDocument {
    let name = path.display().to_string();
    match verdict(path, args) {
        Ok(verdict) => FileDocument::new(name, &verdict),
        Err(error) => {
            // The document names the file itself.
            let words = in_words(&error);
            let words = words.strip_prefix(&format!("{name}: ")).unwrap_or(&words);
            FileDocument::unreadable(name, words.to_owned())
        }
    }
}

fn verdict(path: &Path, args: &VerifyArgs) -> anyhow::Result<Verdict> {
    match load::open(path)? {
        Input::Case(case) => {
            let mut verdict = verify_case(&case);
            if args.torch.is_some() || args.conf.is_some() || args.capacity.is_some() {
                verdict.notes.push(
                    "a golden case says itself under what it was recorded: --torch, --conf and --capacity are not used".into(),
                );
            }
            Ok(verdict)
        }
        Input::Trace(_) => anyhow::bail!(
            "a trace says what was asked, not what an allocator did: there is nothing to compare; use fragsim replay"
        ),
        Input::Snapshot(snapshot) => {
            let (traces, warnings) = load::traces_of(snapshot)?;
            of_traces(&traces, warnings, args)
        }
        Input::Packed(packed) => of_traces(&packed.traces, packed.overview.warnings, args),
    }
}

/// The verdict on the traces of one recording.
fn of_traces(
    traces: &[Trace],
    warnings: Vec<String>,
    args: &VerifyArgs,
) -> anyhow::Result<Verdict> {
    let options =
        VerifyOptions { release: args.torch, conf: args.conf.clone(), capacity: args.capacity };
    for trace in traces {
        if let Some((release, error)) = refused_settings(trace, &options) {
            return Err(anyhow::Error::new(error).context(format!(
                "the settings do not work in PyTorch {release}, so nothing can be compared; give others with --conf"
            )));
        }
    }
    let verdicts = traces.iter().map(|trace| verify_trace(trace, &options));
    let mut verdict = verdicts.reduce(Verdict::join).unwrap_or_default();
    verdict.notes.extend(warnings);
    Ok(verdict)
}
