//! A lesson on a terminal: one picture.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::stepper::{Screen, State};
use crate::report::lesson::{
    pages, sentences, settings,
    strip::{HEAD, Labels, Paint, Scale, rows, short},
    wrapped,
};

/// Backgrounds of blocks, all light enough for black letters.
const COLOURS: [Color; 10] = [
    Color::Indexed(111),
    Color::Indexed(221),
    Color::Indexed(115),
    Color::Indexed(218),
    Color::Indexed(147),
    Color::Indexed(216),
    Color::Indexed(149),
    Color::Indexed(153),
    Color::Indexed(180),
    Color::Indexed(188),
];

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

fn style(paint: Paint) -> Style {
    match paint {
        Paint::Plain => Style::new(),
        Paint::Live(label) => Style::new().fg(Color::Black).bg(COLOURS[label % COLOURS.len()]),
        Paint::Pending => Style::new().fg(Color::Black).bg(Color::Yellow),
        Paint::Free | Paint::Unmapped => QUIET,
    }
}

/// Draws where somebody is.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State<'_>) {
    let area = frame.area();
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let mut lines = match state.screen {
        Screen::Text => text_lines(state, width, height),
        Screen::Steps => step_lines(state, width, height),
        Screen::Help => help_lines(),
    };
    lines.truncate(height.saturating_sub(1));
    let body = Rect { height: area.height.saturating_sub(1), ..area };
    frame.render_widget(Paragraph::new(lines), body);
    let keys = match state.screen {
        Screen::Text => " → steps  ↑↓ scroll  ? keys  q quit",
        Screen::Steps if width < 60 => " ←→ step  c run  t text  ? keys  q quit",
        Screen::Steps => " ←→ step  m next mark  Home End  c or 1-9 run  t text  ? keys  q quit",
        Screen::Help => " any key: back",
    };
    if area.height > 1 {
        let foot = Rect { y: area.y + area.height - 1, height: 1, ..area };
        let style = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(format!("{keys:width$}")).style(style), foot);
    }
}

fn help_lines() -> Vec<Line<'static>> {
    let keys = [
        ("→ space n", "one operation on"),
        ("← b", "one operation back"),
        ("PgDn PgUp", "ten operations"),
        ("Home End", "the beginning, the end"),
        ("m", "the next moment with a name"),
        ("c, 1 to 9", "another run at the same moment"),
        ("t Tab", "the text and back"),
        ("q Esc", "quit"),
    ];
    let mut lines = vec![Line::styled(" Keys", BOLD)];
    for (key, what) in keys {
        lines.push(Line::from(vec![Span::styled(format!(" {key:12}"), BOLD), Span::raw(what)]));
    }
    lines.push(Line::raw(" === live  ... free  ~~~ waits for a stream"));
    lines
}

fn text_lines(state: &mut State<'_>, width: usize, height: usize) -> Vec<Line<'static>> {
    let room = width.saturating_sub(2).min(96);
    let mut all =
        vec![Line::styled(format!(" {}", state.told.lesson.title.replace('`', "")), BOLD)];
    for page in pages(state.told) {
        all.push(Line::raw(""));
        for line in wrapped(&page.replace('`', ""), room, " ") {
            let is_bad = line.trim_start().starts_with("- NOT SO: ");
            all.push(Line::styled(line, if is_bad { BAD } else { Style::new() }));
        }
    }
    let most = all.len().saturating_sub(height.saturating_sub(1));
    state.scroll = state.scroll.min(most);
    all.split_off(state.scroll)
}

/// The lines above the picture, the picture, and those below it.
fn step_lines(state: &State<'_>, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut above = Vec::new();
    let played = state.played();
    let is_narrow = width < 60;
    let mut tabs = vec![Span::raw(" ")];
    for (i, run) in state.told.runs.iter().enumerate() {
        let here = i == state.run;
        let on = if here { BOLD.add_modifier(Modifier::UNDERLINED) } else { QUIET };
        // On a narrow terminal only the one that is shown.
        if here || !is_narrow {
            tabs.push(Span::styled(run.spec.name.clone(), on));
            tabs.push(Span::raw("  "));
        }
    }
    let total = played.steps.len();
    let mut count = format!("{} of {total}", state.done);
    if let Some(mark) = mark_at(state) {
        count.push_str(&format!("  @{mark}"));
    }
    tabs.push(Span::raw(count));
    above.push(Line::from(tabs));
    if !is_narrow {
        above.push(Line::styled(format!(" {}", settings(&played.spec)), QUIET));
    }
    let below = below(state, width);
    let room = height.saturating_sub(1 + above.len() + below.len()).max(1);
    above.extend(picture(state, width, room));
    above.extend(below);
    above
}

/// The name of this moment, if it has one.
fn mark_at<'a>(state: &'a State<'_>) -> Option<&'a str> {
    let marks = &state.played().marks;
    let named = marks.iter().filter(|(name, _)| !["start", "end"].contains(&name.as_str()));
    named.filter(|(_, at)| **at == state.done).map(|(name, _)| name.as_str()).next()
}

fn picture(state: &State<'_>, width: usize, room: usize) -> Vec<Line<'static>> {
    let played = state.played();
    let scene = played.scene(state.done);
    let before = played.scene(state.done.saturating_sub(1));
    let labels = Labels::of(played);
    let head = if width < 60 { 1 } else { HEAD + 1 };
    let scale = Scale::of(played, width.saturating_sub(head + 2));
    let all = rows(&scene, &before, &labels, scale);
    // Where not all segments have room, those around the one that changed.
    let segments = room.saturating_sub(1).max(1);
    let changed = all.iter().position(|row| row.is_changed).unwrap_or_default();
    let from = if all.len() <= segments {
        0
    } else {
        changed.saturating_sub(segments / 2).min(all.len() - segments)
    };
    let mut lines = Vec::new();
    for row in all.iter().skip(from).take(segments) {
        let mut spans = Vec::new();
        let on = if row.is_changed && state.done > 0 { BOLD } else { QUIET };
        let text = if head == 1 { " ".to_owned() } else { format!(" {}", row.head) };
        spans.push(Span::styled(text, on));
        for (c, paint) in &row.cells {
            // Colour fills what letters fill in plain text.
            let c = if matches!(paint, Paint::Live(_)) && *c == '=' { ' ' } else { *c };
            spans.push(Span::styled(c.to_string(), style(*paint)));
        }
        spans.push(Span::styled(format!(" {}", row.tail), QUIET));
        lines.push(Line::from(spans));
    }
    if all.is_empty() {
        lines.push(Line::styled(" no memory is reserved", QUIET));
    }
    let hidden = all.len().saturating_sub(segments);
    let mut foot = scale.words(&scene);
    if hidden > 0 {
        foot = format!("{hidden} more segments; {foot}");
    }
    if room > 1 {
        lines.push(Line::styled(format!(" {foot}"), QUIET));
    }
    // The text below stays where it is from step to step.
    while lines.len() < room {
        lines.push(Line::raw(""));
    }
    lines.truncate(room);
    lines
}

fn below(state: &State<'_>, width: usize) -> Vec<Line<'static>> {
    let played = state.played();
    let levels = played.levels(state.done);
    let room = width.saturating_sub(2);
    let is_narrow = width < 60;
    let mut lines = Vec::new();
    let (told, least) = if is_narrow { (2, 2) } else { (3, 3) };
    match state.done.checked_sub(1).map(|last| &played.steps[last]) {
        None => {
            lines.push(Line::styled(" before the first operation", BOLD));
            lines.extend(padded(&played.spec.about, room, least, Style::new()));
            if !is_narrow {
                lines.push(Line::raw(""));
            }
        }
        Some(step) => {
            let (on, said) = if step.error.is_some() { (BAD, BAD) } else { (BOLD, Style::new()) };
            lines.push(Line::styled(format!(" {}", step.text), on));
            lines.extend(padded(&sentences(step, played).join("; "), room, told, said));
            if !is_narrow {
                let note = if step.note.is_empty() { &step.chapter } else { &step.note };
                let note = if note.is_empty() { String::new() } else { format!("# {note}") };
                lines.extend(padded(&note, room, 1, QUIET));
            }
        }
    }
    let (allocated, reserved) = (short(levels.allocated), short(levels.reserved));
    if is_narrow {
        lines.push(Line::raw(format!(
            " alloc {allocated} res {reserved} dev {}",
            short(levels.device_free)
        )));
    } else {
        lines.push(Line::raw(format!(
            " allocated {allocated}   reserved {reserved}   not allocated {}   device free {}",
            short(levels.reserved.saturating_sub(levels.allocated)),
            short(levels.device_free)
        )));
        let mut more = format!(
            " peak {} / {}   segments {}   cudaMalloc {}   cudaFree {}",
            short(levels.peak_allocated),
            short(levels.peak_reserved),
            levels.segments,
            levels.cuda_malloc,
            levels.cuda_free
        );
        if levels.map > 0 {
            more.push_str(&format!("   mapped {}", levels.map));
        }
        if levels.retries > 0 {
            more.push_str(&format!("   retries {}", levels.retries));
        }
        lines.push(Line::styled(more, QUIET));
    }
    lines
}

/// Exactly `count` lines of a text; what does not fit ends in an ellipsis.
fn padded(text: &str, width: usize, count: usize, style: Style) -> Vec<Line<'static>> {
    let mut lines = wrapped(text, width, " ");
    if lines.len() > count {
        lines.truncate(count);
        if let Some(last) = lines.last_mut() {
            while last.chars().count() + 2 > width && last.pop().is_some() {}
            last.push_str(" …");
        }
    }
    lines.resize(count, String::new());
    lines.into_iter().map(|line| Line::styled(line, style)).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use ratatui::{
        Terminal,
        backend::TestBackend,
        crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    };

    use super::*;
    use crate::lesson::{SHELF, Told, find};

    fn shown(size: (u16, u16), keys: &[KeyCode]) -> String {
        let told = Told::new(SHELF[find("no_block").unwrap()].read().unwrap()).unwrap();
        let mut state = State::new(&told);
        for key in keys {
            assert!(state.key(KeyEvent::new(*key, KeyModifiers::NONE)));
        }
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, &mut state)).unwrap();
        let lines: Vec<String> = terminal
            .backend()
            .to_string()
            .lines()
            .map(|line| line.trim_matches('"').trim_end())
            // The margin, which a picture in the code cannot show.
            .map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned())
            .collect();
        lines.join("\n") + "\n"
    }

    fn check(size: (u16, u16), keys: &[KeyCode], expected: &Expect) {
        expected.assert_eq(&shown(size, keys));
    }

    #[test]
    fn a_failure_on_a_usual_terminal() {
        check(
            (80, 24),
            &[KeyCode::Char('3'), KeyCode::End],
            &expect![[r#"
             roomy  tight  pinned  pinned_expandable  11 of 11
             default settings, 40 MiB, PyTorch 2.15
             large     20 MiB [.................|kee|.................]
             large     20 MiB [.................|kee|.................]
             one column is 512 KiB











             c = alloc 16MiB
             OUT OF MEMORY: 16.00 MiB is asked, and the device has 0 bytes free; 36.00 MiB
             is free, but in 4 blocks of at most 9.00 MiB, each too small; the device has
             not enough, and there is nothing wholly free to give back
             # fits nowhere
             allocated 4 MiB   reserved 40 MiB   not allocated 36 MiB   device free 0 B
             peak 40 MiB / 40 MiB   segments 2   cudaMalloc 4   cudaFree 0   retries 1
             ←→ step  m next mark  Home End  c or 1-9 run  t text  ? keys  q quit
        "#]],
        );
    }

    #[test]
    fn a_failure_on_a_tiny_terminal() {
        check(
            (40, 10),
            &[KeyCode::Char('3'), KeyCode::End],
            &expect![[r#"
                 pinned  11 of 11
                 [........|k|........]
                 [........|k|........]
                 one column is 1 MiB

                 c = alloc 16MiB
                 OUT OF MEMORY: 16.00 MiB is asked,
                 and the device has 0 bytes free; …
                 alloc 4 MiB res 40 MiB dev 0 B
                 ←→ step  c run  t text  ? keys  q quit
            "#]],
        );
    }

    #[test]
    fn the_text_on_a_tiny_terminal() {
        check(
            (40, 10),
            &[],
            &expect![[r#"
                 Enough memory free, and no block for it

                 PyTorch asks the driver for segments
                 and cuts blocks from them. A request
                 must find one free block that is
                 large enough; free blocks of two
                 segments never join, even where the
                 segments are neighbours. So the sum
                 of what is free says nothing about
                 → steps  ↑↓ scroll  ? keys  q quit
            "#]],
        );
    }

    #[test]
    fn no_size_is_too_small() {
        for width in 1..30 {
            for height in 1..12 {
                for keys in [&[][..], &[KeyCode::Right, KeyCode::Right], &[KeyCode::Char('?')]] {
                    shown((width, height), keys);
                }
            }
        }
    }
}
