//! Documents as tables: what JSON nests becomes columns.

use std::fmt::Write;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor},
};

/// A JSON value whose members keep their order.
enum Node {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// A document as CSV with a line of names. Where it has a list `rows`, a row for each of its objects,
/// with what the document says itself before it in each; otherwise one row.
///
/// Nested names are joined by dots. A list of single values is one cell, parted by spaces (texts with
/// spaces by `; `); a list of lists or objects is left out, and what is `null` is empty.
///
/// # Errors
/// When the document is none that JSON can hold.
pub fn to_csv(document: &impl Serialize, rows: &str) -> serde_json::Result<String> {
    of_json(&serde_json::to_string(document)?, rows)
}

fn of_json(json: &str, rows: &str) -> serde_json::Result<String> {
    let node: Node = serde_json::from_str(json)?;
    let mut common = Vec::new();
    let mut lists = Vec::new();
    if let Node::Object(members) = node {
        for (name, member) in members {
            match member {
                Node::List(list) if name == rows => lists = list,
                member => flatten(&name, member, &mut common),
            }
        }
    }
    let mut table: Vec<Cells> = Vec::new();
    for row in lists {
        let mut cells = common.clone();
        if let Node::Object(members) = row {
            members.into_iter().for_each(|(name, member)| flatten(&name, member, &mut cells));
        }
        table.push(cells);
    }
    if table.is_empty() {
        table.push(common);
    }
    Ok(written(&table))
}

type Cells = Vec<(String, String)>;

fn flatten(name: &str, node: Node, cells: &mut Cells) {
    match node {
        Node::Null => cells.push((name.to_owned(), String::new())),
        Node::Scalar(text) => cells.push((name.to_owned(), text)),
        Node::Object(members) => {
            for (member, node) in members {
                flatten(&format!("{name}.{member}"), node, cells);
            }
        }
        Node::List(list) => {
            let is_single = |node: &Node| matches!(node, Node::Scalar(_) | Node::Null);
            if list.iter().all(is_single) {
                let parts = list.into_iter().filter_map(|node| match node {
                    Node::Scalar(text) => Some(text),
                    _ => None,
                });
                let parts: Vec<String> = parts.collect();
                let has_blanks = parts.iter().any(|part| part.contains(' '));
                cells.push((name.to_owned(), parts.join(if has_blanks { "; " } else { " " })));
            }
        }
    }
}

/// Columns in the order in which they are met. A column for what is `null` in every row that has not
/// its parts is left out if another row has them.
fn written(table: &[Cells]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in table.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let has_parts = |name: &str| {
        let is_part =
            |other: &&str| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        names.iter().any(is_part)
    };
    let names: Vec<&str> = names.iter().copied().filter(|name| !has_parts(name)).collect();
    let mut out = names.join(",");
    out.push('\n');
    for cells in table {
        for (i, name) in names.iter().enumerate() {
            let cell = cells.iter().find(|(known, _)| known == name).map_or("", |(_, text)| text);
            let comma = if i > 0 { "," } else { "" };
            let _ = match cell.contains(['"', ',', '\n', '\r']) {
                true => write!(out, "{comma}\"{}\"", cell.replace('"', "\"\"")),
                false => write!(out, "{comma}{cell}"),
            };
        }
        out.push('\n');
    }
    out
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(json: &str, rows: &str, want: &Expect) {
        want.assert_eq(&of_json(json, rows).unwrap());
    }

    #[test]
    fn nested_names_are_joined_and_keep_their_order() {
        check(
            r#"{"z": 1, "a": {"y": null, "b": [1, 2]}, "list": [{"x": 1}], "text": "a, \"b\""}"#,
            "",
            &expect![[r#"
                z,a.y,a.b,text
                1,,1 2,"a, ""b"""
            "#]],
        );
    }

    #[test]
    fn a_row_for_each_of_a_list() {
        check(
            r#"{"file": "a", "rows": [{"n": 1, "oom": null}, {"n": 2, "oom": {"op": 5}}]}"#,
            "rows",
            &expect![[r#"
                file,n,oom.op
                a,1,
                a,2,5
            "#]],
        );
        check(
            r#"{"file": "a", "rows": []}"#,
            "rows",
            &expect![[r#"
                file
                a
            "#]],
        );
    }
}
