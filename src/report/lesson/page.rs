//! A lesson as one self-contained page with a slider.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::document::{LessonDocument, PageDocument, RunRows};
use crate::{lesson::Told, report::page::assemble};

const PARTS: [(&str, &str); 3] = [
    ("/*page.css*/", include_str!("../../../assets/page/page.css")),
    ("/*lesson.css*/", include_str!("../../../assets/lesson/lesson.css")),
    ("/*lesson.js*/", include_str!("../../../assets/lesson/lesson.js")),
];
const PAGE: &str = include_str!("../../../assets/lesson/lesson.html");

/// Writes the page.
///
/// # Errors
/// When `out` does.
pub fn write(told: &Told, out: &mut impl Write) -> io::Result<()> {
    let traces: BTreeMap<String, String> = told
        .runs
        .iter()
        .map(|run| (run.spec.source.name.clone(), run.spec.source.text.clone()))
        .collect();
    let rows = told.runs.iter().map(RunRows::new).collect();
    let document = PageDocument { lesson: LessonDocument::new(told), traces, rows };
    assemble(out, PAGE, &PARTS, |out| crate::report::page::json_data(out, "meta", &document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_place_in_the_page() {
        for (mark, part) in PARTS {
            assert_eq!(PAGE.matches(mark).count(), 1, "{mark}");
            assert!(!part.contains("</script"), "{mark}");
        }
        assert!(PAGE.contains("/*data*/"));
    }
}
