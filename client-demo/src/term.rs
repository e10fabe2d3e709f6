//! Words on a terminal: colour and moving parts only where somebody watches.

use std::{
    env,
    fmt::{self, Display},
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a word means; how that looks is decided here alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Worth a look.
    Strong,
    /// Less important.
    Faint,
    /// Nothing special.
    Plain,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Plain => "0",
        }
    }
}

/// Writes to standard output.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    colour: bool,
    silent: bool,
}

impl Terminal {
    /// Colour if standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
    pub fn new() -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = env::var_os("TERM").is_none_or(|value| value != "dumb");
        Self {
            colour: wanted && able && io::stdout().is_terminal(),
            silent: false,
        }
    }

    /// Says nothing; for output that a program reads.
    pub fn silent() -> Self {
        Self {
            colour: false,
            silent: true,
        }
    }

    /// One line. A reader that has gone is no error: what is shown is a courtesy.
    pub fn line(self, text: impl Display) {
        if !self.silent {
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    /// A line that begins a part.
    pub fn heading(self, text: &str) {
        self.line("");
        self.line(self.paint(Tone::Strong, text));
    }

    /// `text` in the look of `tone`.
    pub fn paint<T: Display>(self, tone: Tone, text: T) -> Painted<T> {
        Painted {
            text,
            code: self.colour.then_some(tone.code()),
        }
    }

    /// A moving mark on standard error while something takes its time; nothing when nobody watches.
    pub fn spinner(self, text: impl Into<String>) -> Spinner {
        let watched = !self.silent && io::stderr().is_terminal();
        let target = if watched {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(text.into());
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

/// A text in its look. Widths in format strings apply to the text alone.
#[derive(Debug, Clone, Copy)]
pub struct Painted<T> {
    text: T,
    code: Option<&'static str>,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => self.text.fmt(f),
            Some(code) => {
                write!(f, "\x1b[{code}m")?;
                self.text.fmt(f)?;
                f.write_str("\x1b[0m")
            }
        }
    }
}

/// See [`Terminal::spinner`]. Dropping it takes it away.
#[derive(Debug)]
pub struct Spinner(ProgressBar);

impl Spinner {
    /// Says something else from now on.
    pub fn say(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }

    /// Makes room while `write` writes lines.
    pub fn aside(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// `1 expiry`, `2 expiries`.
pub fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    let word = if number == N::from(1) { one } else { many };
    format!("{number} {word}")
}
