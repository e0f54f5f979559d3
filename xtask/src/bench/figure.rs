// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Figures with their spread, and the rule by which one is withheld.
//!
//! In: one sample per round. Out: medians, quartiles and the uncertainty of the median, as a table or as JSON. It does
//! not know what is measured.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{budget, conditions::Conditions};

/// All figures of a run, in the order of their measurement.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Figure>);

/// One measured quantity.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    name: String,
    unit: &'static str,
    /// How far off the median may be and still be worth printing.
    tolerance: f64,
    /// Sorted, never empty.
    samples: Vec<f64>,
}

impl Report {
    /// Adds the figure `name`, whose median is printed if it is sure to within `tolerance`. Prints it at once, since a
    /// whole run takes minutes.
    pub(super) fn add(&mut self, name: impl Into<String>, unit: &'static str, tolerance: f64, samples: Vec<f64>) {
        if let Some(figure) = Figure::new(name.into(), unit, tolerance, samples) {
            println!("{figure}");
            self.0.push(figure);
        }
    }

    /// The median of the figure `name`, unless it is withheld.
    pub(super) fn carried(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|figure| figure.name == name)?.carried()
    }

    /// The figure `name` for a table, with so many digits: its median, or the quartiles around one that is withheld.
    pub(super) fn shown(&self, name: &str, digits: usize) -> String {
        let Some(figure) = self.0.iter().find(|figure| figure.name == name) else { return String::new() };
        let quartile = |q| quantile(&figure.samples, q);
        match figure.carried() {
            Some(median) => format!("{median:.digits$}"),
            None => format!("{:.digits$} … {:.digits$}", quartile(0.25), quartile(0.75)),
        }
    }

    /// Everything a later comparison needs; a withheld figure is `null` beside its spread.
    pub(super) fn json(&self, conditions: &Conditions) -> Value {
        let medians: Map<_, _> = self.0.iter().map(|figure| (figure.name.clone(), json!(figure.carried()))).collect();
        let spreads: Map<_, _> = self.0.iter().map(|figure| (figure.name.clone(), figure.json())).collect();
        let mut object = medians;
        object.insert("spreads".into(), spreads.into());
        object.insert("conditions".into(), conditions.json());
        object.into()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<38} {:>10} {:>9}   {:<28} {:>6}  budget", "figure", "median", "±", "quartiles", "rounds")?;
        for figure in &self.0 {
            writeln!(f, "{figure}")?;
        }
        Ok(())
    }
}

impl Figure {
    /// None without samples.
    fn new(name: String, unit: &'static str, tolerance: f64, mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        (!samples.is_empty()).then_some(Self { name, unit, tolerance, samples })
    }

    fn median(&self) -> f64 {
        quantile(&self.samples, 0.5)
    }

    /// Half the width of the notch of a box plot: medians that differ by more than both of theirs differ at the 95 %
    /// level (McGill, Tukey and Larsen, "Variations of Box Plots", 1978).
    fn uncertainty(&self) -> f64 {
        let range = quantile(&self.samples, 0.75) - quantile(&self.samples, 0.25);
        1.57 * range / (self.samples.len() as f64).sqrt()
    }

    /// The median, unless the spread is too wide to carry it.
    fn carried(&self) -> Option<f64> {
        (self.uncertainty() <= self.tolerance).then(|| self.median())
    }

    fn json(&self) -> Value {
        json!({
            "unit": self.unit,
            "median_uncertainty": self.uncertainty(),
            "tolerance": self.tolerance,
            "min": self.samples.first(),
            "quartiles": [quantile(&self.samples, 0.25), self.median(), quantile(&self.samples, 0.75)],
            "max": self.samples.last(),
            "rounds": self.samples.len(),
            "withheld": self.carried().is_none(),
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quartiles =
            format!("{:.2} … {:.2} {}", quantile(&self.samples, 0.25), quantile(&self.samples, 0.75), self.unit);
        // A median that the spread does not carry would be quoted all the same, once it is printed.
        let median = self.carried().map_or_else(|| "withheld".to_owned(), |median| format!("{median:.2}"));
        let budget = match (budget::of(&self.name), self.carried()) {
            (None, _) => String::new(),
            (Some(budget), None) => format!("≤ {budget}: unknown, the spread is too wide"),
            (Some(budget), Some(median)) if median <= budget => format!("≤ {budget}: met"),
            (Some(budget), Some(_)) => format!("≤ {budget}: MISSED"),
        };
        let rounds = self.samples.len();
        write!(f, "{:<38} {median:>10} {:>9.2}   {quartiles:<28} {rounds:>6}  {budget}", self.name, self.uncertainty())
    }
}

/// The value below which the share `q` of `sorted` lies, interpolated.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len().saturating_sub(1)) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(below), sorted.get(above)) {
        (Some(low), Some(high)) => low + (high - low) * place.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &[f64]) -> Figure {
        Figure::new("x".into(), "%", 1.0, samples.to_vec()).expect("there are samples")
    }

    #[test]
    fn quantiles_lie_between_samples() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.25), 1.5);
        assert_eq!(quantile(&[7.0], 0.75), 7.0);
    }

    #[test]
    fn a_figure_is_withheld_when_its_spread_is_too_wide() {
        assert_eq!(figure(&[2.9, 3.0, 3.1, 3.0]).carried(), Some(3.0));
        assert_eq!(figure(&[-20.0, 3.0, 30.0, 2.0]).carried(), None);
        assert!(figure(&[-20.0, 3.0, 30.0, 2.0]).to_string().contains("withheld"));
    }

    #[test]
    fn one_outlier_among_many_rounds_withholds_nothing() {
        let mut samples = vec![3.0; 11];
        samples.push(90.0);
        assert_eq!(figure(&samples).carried(), Some(3.0));
    }

    #[test]
    fn no_samples_are_no_figure() {
        assert!(Figure::new("x".into(), "%", 1.0, Vec::new()).is_none());
    }
}
