//! `fragsim synth --list`.

use serde::Serialize;

use crate::{
    cli::{
        many::{TableFormat, to_csv},
        output::Output,
    },
    report::to_json,
    workload::catalogue,
};

#[derive(Serialize)]
struct WorkloadDocument {
    workload: &'static str,
    about: &'static str,
    presets: Vec<&'static str>,
    parameters: Vec<ParameterDocument>,
}

#[derive(Serialize)]
struct ParameterDocument {
    name: &'static str,
    about: &'static str,
    kind: String,
    default: String,
}

#[derive(Serialize)]
struct Row {
    workload: &'static str,
    parameter: &'static str,
    about: &'static str,
    kind: String,
    default: String,
}

/// All workloads.
pub(super) fn run(format: TableFormat, output: &mut Output) -> anyhow::Result<()> {
    let documents: Vec<WorkloadDocument> = catalogue()
        .iter()
        .map(|entry| WorkloadDocument {
            workload: entry.name,
            about: entry.about,
            presets: entry.presets.iter().map(|preset| preset.name).collect(),
            parameters: (entry.make)()
                .parameters()
                .into_iter()
                .map(|parameter| ParameterDocument {
                    name: parameter.name,
                    about: parameter.about,
                    kind: parameter.kind,
                    default: parameter.default,
                })
                .collect(),
        })
        .collect();
    match format {
        TableFormat::Json => output.line(&to_json(&serde_json::json!({ "workloads": documents }))),
        TableFormat::Csv => {
            let rows = documents.into_iter().flat_map(|document| {
                let workload = document.workload;
                document.parameters.into_iter().map(move |parameter| Row {
                    workload,
                    parameter: parameter.name,
                    about: parameter.about,
                    kind: parameter.kind,
                    default: parameter.default,
                })
            });
            output.write(&to_csv(rows)?)
        }
        TableFormat::Text => {
            let width = documents.iter().map(|d| d.workload.len()).max().unwrap_or(0);
            for document in &documents {
                output.line(&format!("  {:<width$}  {}", document.workload, document.about))?;
                if !document.presets.is_empty() {
                    let presets = document.presets.join(", ");
                    output.line(&format!("  {:<width$}  presets: {presets}", ""))?;
                }
            }
            output.line("\nfragsim synth WORKLOAD --help shows its parameters.")
        }
    }
}
