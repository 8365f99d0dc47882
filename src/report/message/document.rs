//! The machine-readable form.

use serde::Serialize;

use super::{Shown, words};
use crate::{base::ByteRange, study::message::Cause};

/// All messages of a text.
#[derive(Debug, Serialize)]
pub struct MessagesDocument {
    /// The file as given, or `message`.
    pub file: String,
    /// Bytes that were read.
    pub bytes: u64,
    /// Messages in all; equal ones are listed once.
    pub found: u64,
    /// The messages, the last one first.
    pub messages: Vec<MessageDocument>,
}

/// One message.
#[derive(Debug, Serialize)]
pub struct MessageDocument {
    /// Why: `fragmentation`, `truly full`, `other processes`, `fraction limit`, `other limit`,
    /// `private pools`, `host spill-over` or `not decidable`.
    pub verdict: &'static str,
    /// What that rests on.
    pub reason: &'static str,
    /// `certain`, `likely` or `open`.
    pub certainty: &'static str,
    /// The verdict in a sentence.
    pub words: String,
    /// What else was in the way.
    pub contributing: Vec<&'static str>,
    /// What the figures rule out.
    pub ruled_out: Vec<&'static str>,
    /// What an open verdict leaves.
    pub candidates: Vec<&'static str>,
    /// Who printed it.
    pub backend: &'static str,
    /// Which wording it has.
    pub layout: &'static str,
    /// The oldest and newest release of PyTorch that word it so.
    pub torch: Option<[String; 2]>,
    /// The device's ordinal.
    pub device: Option<u32>,
    /// The line of its last occurrence.
    pub line: u64,
    /// How often it was said.
    pub count: u64,
    /// The ranks that said it.
    pub ranks: Vec<u32>,
    /// What it says and what follows, each as least and most bytes.
    pub figures: FiguresDocument,
    /// What does not add up.
    pub contradictions: Vec<String>,
    /// What to do.
    pub advice: Vec<String>,
    /// What to note next time.
    pub record: Vec<String>,
    /// Its words on one line.
    pub text: String,
}

/// Least and most bytes.
type Bounds = Option<[i128; 2]>;

/// The figures.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in `study::message::Account`")]
pub struct FiguresDocument {
    pub requested_bytes: Bounds,
    pub total_bytes: Bounds,
    pub allowed_bytes: Bounds,
    pub free_bytes: Bounds,
    pub reserved_bytes: Bounds,
    pub allocated_bytes: Bounds,
    pub private_pools_bytes: Bounds,
    pub unallocated_bytes: Bounds,
    pub shortfall_bytes: Bounds,
    pub outside_bytes: Bounds,
    pub context_bytes: Bounds,
    pub others_bytes: Bounds,
}

fn bounds(range: Option<ByteRange>) -> Bounds {
    range.map(|range| [range.low(), range.high()])
}

impl Shown<'_> {
    /// The message as a document.
    pub fn document(&self) -> MessageDocument {
        let (message, diagnosis) = (self.message, self.diagnosis);
        let account = &diagnosis.account;
        let names = |causes: &[Cause]| causes.iter().map(|cause| cause.name()).collect();
        let torch = message.torch.map(|both| both.map(|(major, minor)| format!("{major}.{minor}")));
        MessageDocument {
            verdict: diagnosis.cause.name(),
            reason: diagnosis.reason.name(),
            certainty: diagnosis.certainty.name(),
            words: words::headline(message, diagnosis),
            contributing: names(&diagnosis.contributing),
            ruled_out: names(&diagnosis.ruled_out),
            candidates: names(&diagnosis.candidates),
            backend: message.backend.name(),
            layout: message.layout.name(),
            torch,
            device: message.device,
            line: self.line,
            count: self.count,
            ranks: self.ranks.to_vec(),
            figures: FiguresDocument {
                requested_bytes: bounds(account.requested),
                total_bytes: bounds(account.total),
                // cudaMallocAsync prints 2^64 bytes where there is no limit.
                allowed_bytes: bounds(
                    message.figures.allowed.filter(|limit| limit.high() < 1 << 63),
                ),
                free_bytes: bounds(account.free),
                reserved_bytes: bounds(account.reserved),
                allocated_bytes: bounds(account.allocated),
                private_pools_bytes: bounds(account.private_pools),
                unallocated_bytes: bounds(account.unallocated),
                shortfall_bytes: bounds(account.shortfall),
                outside_bytes: bounds(account.outside),
                context_bytes: bounds(account.context),
                others_bytes: bounds(account.others),
            },
            contradictions: words::contradictions(account),
            advice: words::remedies(message, diagnosis),
            record: words::steps(message, diagnosis),
            text: self.text.to_owned(),
        }
    }
}
