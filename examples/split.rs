use std::time::Instant;
fn main(){ let p=std::env::args().nth(1).unwrap(); 
 for _ in 0..3 {
 let t=Instant::now(); let s=fragsim::source::snapshot::load(&p).unwrap(); let a=t.elapsed();
 let t=Instant::now(); let h=s.histories().unwrap(); let b=t.elapsed();
 let t=Instant::now(); drop(s); drop(h); let c=t.elapsed();
 println!("load {a:?} histories {b:?} drop {c:?}"); } 
 let s=std::fs::read_to_string("/proc/self/status").unwrap(); println!("{}", s.lines().find(|l|l.starts_with("VmHWM")).unwrap()); }
