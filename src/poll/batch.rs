//! When one request for the list of all runs is worth more than one for each run that is due. Pure.
//!
//! The list has every run of the company, so that it can be long where few of them are watched; a run by itself is a
//! request, of which a minute has only so many.

/// What a request costs beside its bytes, in bytes: its share of the budget, and of everybody's patience.
const REQUEST: f64 = 20_000.0;

/// Before a list was read its length is not known: so many runs have to be due for it to be tried.
const TRY_FROM: usize = 20;

/// How much the last answer counts against those before it.
const NEWS: f64 = 0.3;

/// Whether the list is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Where it is cheaper.
    #[default]
    Auto,
    /// Not at all.
    Never,
    /// Wherever something is due that it can tell.
    Always,
}

/// What the two ways have cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Costs {
    /// The mean length of an answer about one run, in bytes.
    run: Option<f64>,
    /// The length of the list, in bytes.
    list: Option<f64>,
}

impl Costs {
    /// Takes in the length of an answer about one run.
    pub fn saw_run(&mut self, bytes: usize) {
        let bytes = bytes as f64;
        self.run = Some(self.run.map_or(bytes, |mean| mean + NEWS * (bytes - mean)));
    }

    /// Takes in the length of a list.
    pub fn saw_list(&mut self, bytes: usize) {
        self.list = Some(bytes as f64);
    }

    /// How many runs have to be due for one list to be better than asking about each of them; `None` if it never is.
    pub fn list_from(&self, mode: Mode) -> Option<usize> {
        match (mode, self.list) {
            (Mode::Never, _) => None,
            (Mode::Always, _) => Some(1),
            (Mode::Auto, None) => Some(TRY_FROM),
            (Mode::Auto, Some(list)) => {
                let runs = (REQUEST + list) / (REQUEST + self.run.unwrap_or_default());
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and beyond all counting is as good as the largest"
                )]
                Some(runs as usize + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_way_is_taken() {
        let mut costs = Costs::default();
        assert_eq!(costs.list_from(Mode::Auto), Some(TRY_FROM), "to find out");
        costs.saw_run(1000);
        // A short list is worth it for a few runs, one of a large company for many only.
        costs.saw_list(60_000);
        assert_eq!(costs.list_from(Mode::Auto), Some(4));
        costs.saw_list(30_000_000);
        assert_eq!(costs.list_from(Mode::Auto), Some(1430));
        // Runs with thousands of files are dear by themselves.
        for _ in 0..50 {
            costs.saw_run(3_000_000);
        }
        assert_eq!(costs.list_from(Mode::Auto), Some(10));
        assert_eq!((costs.list_from(Mode::Never), costs.list_from(Mode::Always)), (None, Some(1)));
    }
}
