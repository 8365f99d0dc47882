//! Runs the program, and makes files for it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a run came to.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }

    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fragsim"));
    command.args(args).env_remove("NO_COLOR").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// Runs the program.
pub(crate) fn run(args: &[&str]) -> Ran {
    Ran::of(command(args).output().unwrap())
}

/// Runs the program with `input` on its standard input.
pub(crate) fn run_with(args: &[&str], input: &[u8]) -> Ran {
    let mut command = command(args);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // A program that stops early closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    Ran::of(child.wait_with_output().unwrap())
}

/// Files of one test.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path among them.
    pub(crate) fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A new file; its path.
    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.at(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Paths as they are, without the folder that differs from run to run.
    pub(crate) fn without_folder(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// Data that is too large to ship, if it is there.
pub(crate) fn shared(part: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FRAGSIM_SHARED").map_or_else(|| "../shared".into(), PathBuf::from);
    let path = root.join("data").join(part);
    if path.exists() {
        return Some(path);
    }
    println!("{} is absent: not compared (FRAGSIM_SHARED names the folder)", path.display());
    None
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

// ---- snapshots ---------------------------------------------------------------------------------

/// Where the small snapshot's segment is.
pub(crate) const BASE: u64 = 0x7f00_0000_0000;

/// A value as a pickle of protocol 4; `pool ids` are tuples as PyTorch writes them.
pub(crate) fn pickle(value: &Value) -> Vec<u8> {
    let mut out = vec![0x80, 4];
    write(&mut out, value, false);
    out.push(b'.');
    out
}

fn write(out: &mut Vec<u8>, value: &Value, is_tuple: bool) {
    match value {
        Value::Null => out.push(b'N'),
        Value::Bool(flag) => out.push(if *flag { 0x88 } else { 0x89 }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(real) => {
                out.push(b'G');
                out.extend(real.to_be_bytes());
            }
            None => match number.as_i64() {
                Some(n) => {
                    out.extend([0x8a, 8]);
                    out.extend(n.to_le_bytes());
                }
                None => {
                    out.extend([0x8a, 9]);
                    out.extend(number.as_u64().unwrap().to_le_bytes());
                    out.push(0);
                }
            },
        },
        Value::String(text) => {
            out.extend([0x8c, u8::try_from(text.len()).unwrap()]);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            out.extend(if is_tuple { &b"("[..] } else { b"](" });
            items.iter().for_each(|item| write(out, item, false));
            out.push(if is_tuple { b't' } else { b'e' });
        }
        Value::Object(pairs) => {
            out.extend(b"}(");
            for (key, value) in pairs {
                write(out, &Value::String(key.clone()), false);
                write(out, value, key.ends_with("pool_id"));
            }
            out.push(b'u');
        }
    }
}

/// A trace entry as 2.11 writes it.
pub(crate) fn entry(action: &str, addr: u64, size: i64) -> Value {
    json!({
        "action": action, "addr": addr, "size": size, "stream": 0, "time_us": 1,
        "compile_context": "N/A", "user_metadata": "", "frames": [],
    })
}

/// A small segment of 2 MiB with one allocated block of 512 bytes at its start.
pub(crate) fn segment(device: u8, address: u64) -> Value {
    json!({
        "device": device, "address": address, "total_size": 2 << 20, "allocated_size": 512,
        "active_size": 512, "requested_size": 512, "stream": 0, "segment_type": "small",
        "segment_pool_id": [0, 0], "is_expandable": false, "frames": [],
        "blocks": [
            {"address": address, "size": 512, "requested_size": 500, "state": "active_allocated",
             "frames": []},
            {"address": address + 512, "size": (2 << 20) - 512, "requested_size": 0,
             "state": "inactive", "frames": []},
        ],
    })
}

/// A snapshot of 2.11 with its whole history: one request of 500 bytes.
pub(crate) fn snapshot() -> Value {
    let divisions: serde_json::Map<_, _> =
        (0..16).map(|i| ((1u64 << i).to_string(), json!(0))).collect();
    json!({
        "segments": [segment(0, BASE)],
        "device_traces": [[entry("segment_alloc", BASE, 2 << 20), entry("alloc", BASE, 500)]],
        "allocator_settings": {
            "PYTORCH_CUDA_ALLOC_CONF": "", "max_split_size": -1,
            "garbage_collection_threshold": 0.0, "expandable_segments": false,
            "pinned_num_register_threads": 1, "release_lock_on_cudamalloc": false,
            "pinned_use_cuda_host_register": false, "roundup_power2_divisions": divisions,
            "graph_capture_record_stream_reuse": false,
        },
        "external_annotations": [],
    })
}

/// The snapshot with something changed, by JSON pointer.
pub(crate) fn snapshot_with(changes: &[(&str, Value)]) -> Value {
    let mut snapshot = snapshot();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match snapshot.pointer_mut(parent).unwrap() {
            Value::Object(pairs) => {
                pairs.insert(key.to_owned(), value.clone());
            }
            Value::Array(items) if key == "-" => items.push(value.clone()),
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
            other => panic!("{other} has no parts"),
        }
    }
    snapshot
}
