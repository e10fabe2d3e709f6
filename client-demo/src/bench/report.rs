//! The figures, side by side with their budgets, their goals, and the floor of the same run.

use serde::Serialize;

use crate::term::{Terminal, Tone};

/// All figures of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How it was measured.
    pub setting: Setting,
    /// The figures.
    pub figures: Vec<Figure>,
    /// What to know when reading them.
    pub notes: Vec<String>,
}

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Connections of the main fleet.
    pub connections: u32,
    /// Devices of each of its users.
    pub devices_per_user: u32,
    /// Whether server and generator each had a core of their own.
    pub pinned: bool,
    /// Whether hub and generator are release builds; the hub's is known only when it lies beside this program.
    pub release: bool,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The hub.
    pub hub: f64,
    /// The floor of the same run.
    pub floor: Option<f64>,
    /// The hub in units of the floor.
    pub ratio: Option<f64>,
    /// What must be reached.
    pub budget: Option<f64>,
    /// What should be reached.
    pub goal: Option<f64>,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Figure {
    /// A figure of which less is better.
    pub(super) fn cost(name: &'static str, unit: &'static str, hub: f64) -> Self {
        Self {
            name,
            unit,
            hub,
            floor: None,
            ratio: None,
            budget: None,
            goal: None,
            more_is_better: false,
        }
    }

    /// A figure of which more is better.
    pub(super) fn yields(name: &'static str, unit: &'static str, hub: f64) -> Self {
        Self {
            more_is_better: true,
            ..Self::cost(name, unit, hub)
        }
    }

    pub(super) fn floor(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self.ratio = (floor > 0.0).then_some(self.hub / floor);
        self
    }

    pub(super) fn aims(mut self, budget: f64, goal: f64) -> Self {
        self.budget = Some(budget);
        self.goal = Some(goal);
        self
    }

    fn reaches(&self, aim: Option<f64>) -> Option<bool> {
        aim.map(|aim| {
            if self.more_is_better {
                self.hub >= aim
            } else {
                self.hub <= aim
            }
        })
    }

    /// Whether the budget is kept; `None` without a budget.
    pub fn in_budget(&self) -> Option<bool> {
        self.reaches(self.budget)
    }

    fn verdict(&self) -> (Tone, &'static str) {
        match (self.in_budget(), self.reaches(self.goal)) {
            (_, Some(true)) => (Tone::Good, "goal"),
            (Some(true), _) => (Tone::Good, "budget"),
            (Some(false), _) => (Tone::Bad, "over"),
            (None, _) => (Tone::Faint, ""),
        }
    }
}

/// The table for people.
pub fn show(terminal: Terminal, report: &Report) {
    let Setting {
        connections,
        devices_per_user,
        pinned,
        release,
    } = &report.setting;
    terminal.line("");
    terminal.line(format_args!(
        "{connections} connections, {devices_per_user} devices per user, 1.2 KB updates, each delivered and acked{}{}",
        if *pinned {
            "; server and generator on a core each"
        } else {
            "; NOT pinned: figures are rough"
        },
        if *release {
            ""
        } else {
            "; DEBUG build: figures mean nothing"
        },
    ));
    terminal.line("");
    terminal.line(format_args!(
        "  {:<48} {:>9} {:>9} {:>6} {:>9} {:>9}",
        "", "hub", "floor", "ratio", "budget", "goal"
    ));
    for figure in &report.figures {
        let (tone, verdict) = figure.verdict();
        terminal.line(format_args!(
            "  {:<48} {:>9} {:>9} {:>6} {:>9} {:>9}  {}",
            format!("{}, {}", figure.name, figure.unit),
            number(figure.hub),
            optional(figure.floor),
            figure.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            optional(figure.budget),
            optional(figure.goal),
            terminal.paint(tone, verdict),
        ));
    }
    terminal.line("");
    for note in &report.notes {
        terminal.line(terminal.paint(Tone::Faint, format!("  {note}")));
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or(String::new(), number)
}

/// Three significant digits, or the whole number when it has more.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_better_for_costs_and_more_for_yields() {
        let cost = Figure::cost("c", "us", 15.0).floor(10.0).aims(20.0, 12.0);
        assert_eq!((cost.ratio, cost.verdict().1), (Some(1.5), "budget"));
        let yields = Figure::yields("y", "1/s", 15.0).aims(20.0, 30.0);
        assert_eq!((yields.in_budget(), yields.verdict().1), (Some(false), "over"));
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [number(0.314_15), number(31.415), number(3141.5)],
            ["0.31", "31.4", "3142"]
        );
    }
}
