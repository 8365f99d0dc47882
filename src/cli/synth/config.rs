//! The file of `--config`: a workload and its values, or a program of one's own.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, bail};

use crate::workload::own::{Own, OwnFile};

/// The largest file that is read.
const LIMIT: u64 = 16 << 20;

/// What a file says.
pub(super) enum Config {
    /// Values for a workload of the catalogue.
    Workload(Values),
    /// A program of one's own.
    Own(Own),
}

/// A workload and its values.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) workload: Option<String>,
    pub(super) preset: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
}

/// Reads it; `-` is standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<Config> {
    let name = || path.display().to_string();
    let mut text = String::new();
    let mut read = |input: &mut dyn Read| input.take(LIMIT + 1).read_to_string(&mut text);
    if path == Path::new("-") {
        read(&mut std::io::stdin().lock()).context("standard input cannot be read")?;
    } else {
        read(&mut File::open(path).with_context(name)?).with_context(name)?;
    }
    if text.len() as u64 > LIMIT {
        bail!("{}: longer than 16 MiB, which no description of a program is", path.display());
    }
    parse(&text).with_context(name)
}

fn parse(text: &str) -> anyhow::Result<Config> {
    let table: toml::Table = toml::from_str(text).map_err(in_a_line)?;
    if table.contains_key("phase") || table.contains_key("tensor") {
        let file: OwnFile = toml::from_str(text).map_err(in_a_line)?;
        return Ok(Config::Own(Own::new(file)?));
    }
    let mut values = Values::default();
    for (key, value) in &table {
        match (key.as_str(), value) {
            ("workload", toml::Value::String(name)) => values.workload = Some(name.clone()),
            ("preset", toml::Value::String(name)) => values.preset = Some(name.clone()),
            ("workload" | "preset", _) => bail!("{key}: give its name in quotes"),
            (name, value) => values.parameters.push((name.to_owned(), shown(name, value)?)),
        }
    }
    Ok(Config::Workload(values))
}

/// A value as it would stand on the command line.
fn shown(name: &str, value: &toml::Value) -> anyhow::Result<String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| shown(name, item)).collect::<Result<_, _>>()?;
            items.join(",")
        }
        toml::Value::Table(_) => bail!(
            "{name}: parameters stand on their own, without a table: layers = 24; for a program of your own write [tensor.NAME] and [[phase]]"
        ),
        toml::Value::Datetime(_) => bail!("{name}: a date is no value of a parameter"),
    })
}

/// The place and the reason, without the excerpt.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn in_a_line(error: toml::de::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", error.to_string().trim_end().replace('\n', "\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_file_are_those_of_the_command_line() {
        let text = "workload = 'train'\nlayers = 24\nflag = true\nrate = 0.5\nsizes = [1, 2]";
        let Config::Workload(values) = parse(text).unwrap() else { panic!("a workload") };
        assert_eq!(values.workload.as_deref(), Some("train"));
        let mut shown: Vec<String> =
            values.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        shown.sort();
        assert_eq!(shown, ["flag=true", "layers=24", "rate=0.5", "sizes=1,2"]);
    }
}
