//! A lesson on a terminal: keys, and where one is.

use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::draw;
use crate::{
    lesson::{Played, Told},
    report::lesson::plain_marks,
};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// The text of the lesson.
    Text,
    /// The replay.
    Steps,
    /// The keys.
    Help,
}

/// Where somebody is in a lesson.
pub(super) struct State<'a> {
    pub(super) told: &'a Told,
    pub(super) screen: Screen,
    pub(super) run: usize,
    /// Operations that are done, of this run.
    pub(super) done: usize,
    /// Lines of the text that are above the screen; drawing keeps it within the text.
    pub(super) scroll: usize,
    /// What help returns to.
    before_help: Screen,
}

impl<'a> State<'a> {
    pub(super) fn new(told: &'a Told) -> Self {
        Self { told, screen: Screen::Text, run: 0, done: 0, scroll: 0, before_help: Screen::Text }
    }

    pub(super) fn played(&self) -> &'a Played {
        &self.told.runs[self.run]
    }

    /// Does what a key says; false for the end.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return false,
            KeyCode::Char('q') => return false,
            KeyCode::Esc if self.screen != Screen::Help => return false,
            _ if self.screen == Screen::Help => self.screen = self.before_help,
            KeyCode::Char('?' | 'h') => {
                self.before_help = self.screen;
                self.screen = Screen::Help;
            }
            KeyCode::Char('t') | KeyCode::Tab => {
                self.screen =
                    if self.screen == Screen::Text { Screen::Steps } else { Screen::Text };
            }
            KeyCode::Char('c' | 'r') => self.choose((self.run + 1) % self.told.runs.len()),
            KeyCode::Char(digit @ '1'..='9') => {
                let at = digit.to_digit(10).and_then(|n| usize::try_from(n).ok()).unwrap_or(1) - 1;
                if at < self.told.runs.len() {
                    self.choose(at);
                }
            }
            code if self.screen == Screen::Text => self.scroll_key(code),
            code => self.step_key(code),
        }
        true
    }

    /// Another run at the same moment, or its end.
    fn choose(&mut self, run: usize) {
        self.run = run;
        self.screen = Screen::Steps;
        self.go(self.done);
    }

    fn go(&mut self, done: usize) {
        self.done = done.min(self.played().steps.len());
    }

    fn scroll_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::PageDown => self.scroll += 10,
            KeyCode::Home => self.scroll = 0,
            KeyCode::Right | KeyCode::Enter | KeyCode::Char(' ' | 'l' | 'n') => {
                self.screen = Screen::Steps;
            }
            _ => {}
        }
    }

    fn step_key(&mut self, code: KeyCode) {
        let done = self.done;
        match code {
            KeyCode::Right
            | KeyCode::Down
            | KeyCode::Char(' ' | 'l' | 'n' | 'j')
            | KeyCode::Enter => {
                self.go(done + 1);
            }
            KeyCode::Left | KeyCode::Up | KeyCode::Backspace | KeyCode::Char('b' | 'k') => {
                if done == 0 {
                    self.screen = Screen::Text;
                }
                self.go(done.saturating_sub(1));
            }
            KeyCode::PageDown => self.go(done + 10),
            KeyCode::PageUp => self.go(done.saturating_sub(10)),
            KeyCode::Home => self.go(0),
            KeyCode::End => self.go(usize::MAX),
            KeyCode::Char('m') => {
                let marks = plain_marks(self.played());
                let next = marks.iter().copied().find(|mark| *mark > done);
                self.go(next.or(marks.first().copied()).unwrap_or(done));
            }
            _ => {}
        }
    }
}

/// Steps through a lesson until somebody quits. The terminal is as before afterwards, also where this
/// program panics.
pub(super) fn run(told: &Told) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("the terminal cannot be used; try --plain")?;
    let mut state = State::new(told);
    let ended = (|| -> std::io::Result<()> {
        loop {
            terminal.draw(|frame| draw::draw(frame, &mut state))?;
            // A resized window is drawn anew, as anything that is no key.
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && !state.key(key)
            {
                return Ok(());
            }
        }
    })();
    ratatui::try_restore().context("the terminal cannot be restored; 'reset' does it")?;
    ended.context("the terminal cannot be used; try --plain")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lesson::SHELF;

    fn press(state: &mut State<'_>, codes: &[KeyCode]) -> bool {
        codes.iter().all(|code| state.key(KeyEvent::new(*code, KeyModifiers::NONE)))
    }

    #[test]
    fn keys_go_where_they_say() {
        let told =
            Told::new(SHELF[crate::lesson::find("no_block").unwrap()].read().unwrap()).unwrap();
        let mut state = State::new(&told);
        let at = |state: &State<'_>| (state.screen, state.run, state.done);
        assert!(press(&mut state, &[KeyCode::Right, KeyCode::Right, KeyCode::Char(' ')]));
        assert_eq!(at(&state), (Screen::Steps, 0, 2));
        assert!(press(&mut state, &[KeyCode::Left, KeyCode::Left, KeyCode::Left]));
        assert_eq!(at(&state), (Screen::Text, 0, 0));
        assert!(press(&mut state, &[KeyCode::Char('3'), KeyCode::End]));
        assert_eq!(at(&state), (Screen::Steps, 2, told.runs[2].steps.len()));
        assert!(press(&mut state, &[KeyCode::Char('1')]));
        assert_eq!(
            at(&state),
            (Screen::Steps, 0, told.runs[0].steps.len()),
            "the end of the shorter run"
        );
        assert!(press(&mut state, &[KeyCode::Home, KeyCode::Char('m')]));
        assert_eq!(state.done, told.runs[0].marks["free"]);
        assert!(press(&mut state, &[KeyCode::Char('?'), KeyCode::Char('x')]));
        assert_eq!(state.screen, Screen::Steps);
        assert!(press(&mut state, &[KeyCode::Char('9')]), "there is no ninth run");
        assert_eq!(state.run, 0);
        assert!(!press(&mut state, &[KeyCode::Char('q')]));
    }
}
