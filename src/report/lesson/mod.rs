//! Lessons for people and for programs: plain text, JSON, a page; sentences and pictures for the
//! terminal.

mod document;
pub mod page;
pub mod strip;
mod text;
mod words;

pub use self::{
    document::{
        ClaimDocument, LessonDocument, ListDocument, ListRow, PopularDocument, RunDocument,
        StepDocument, ThreadDocument,
    },
    text::{lesson_text, list_text, pages, plain_marks, settings, wrapped},
    words::sentences,
};
