//! Line plots as SVG, without a library.

use std::fmt::Write as _;

/// A plot of several lines; the vertical axis is logarithmic, because contenders differ by orders of magnitude.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below the horizontal axis.
    pub x: String,
    /// Beside the vertical axis.
    pub y: String,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// One line, and the dots it goes through.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// At its end.
    pub name: String,
    /// Measurements.
    pub dots: Vec<(f64, f64)>,
    /// What is drawn through them.
    pub path: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 55.0;
/// Told apart by people who do not see all colours, too.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#777777", "#009e73"];

/// Where numbers are on the page.
struct Scales {
    most_x: f64,
    /// Logarithms of the least and the greatest.
    y: (f64, f64),
}

impl Scales {
    fn of(plot: &Plot) -> Option<Self> {
        let points = || plot.lines.iter().flat_map(|line| line.dots.iter().chain(&line.path));
        let most_x = points().map(|point| point.0).reduce(f64::max)?;
        let least = points().map(|point| point.1).filter(|y| *y > 0.0).reduce(f64::min)?;
        let greatest = points().map(|point| point.1).reduce(f64::max)?;
        // A little room above and below.
        Some(Self { most_x: most_x.max(1.0), y: ((least * 0.8).log10(), (greatest * 1.25).log10()) })
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.most_x * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let fraction = (value.max(1e-9).log10() - self.y.0) / (self.y.1 - self.y.0);
        HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM)
    }

    /// 1, 2 and 5 times powers of ten, as far as they are in sight.
    fn y_ticks(&self) -> Vec<f64> {
        (-6..9)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
            .filter(|tick| (self.y.0..=self.y.1).contains(&tick.log10()))
            .collect()
    }

    /// Round numbers, about five.
    fn x_ticks(&self) -> Vec<f64> {
        let rough = self.most_x / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough).max(1.0);
        std::iter::successors(Some(0.0), |tick| Some(tick + step))
            .take_while(|tick| *tick <= self.most_x + step * 1e-6)
            .collect()
    }
}

impl Plot {
    /// The document; `None` if there is nothing to draw.
    pub fn svg(&self) -> Option<String> {
        let scales = Scales::of(self)?;
        let mut svg = String::new();
        let _ = writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
        );
        let _ = writeln!(svg, r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#);
        text(&mut svg, (WIDTH / 2.0, 25.0), "middle", r#" font-size="15""#, &self.title);
        text(&mut svg, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0), "middle", "", &self.x);
        let turned = format!(r#" transform="rotate(-90 16 {})""#, (TOP + HEIGHT - BOTTOM) / 2.0);
        text(&mut svg, (16.0, (TOP + HEIGHT - BOTTOM) / 2.0), "middle", &turned, &self.y);
        grid(&mut svg, &scales);
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            draw(&mut svg, &scales, line, colour);
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }
}

fn grid(svg: &mut String, scales: &Scales) {
    for tick in scales.y_ticks() {
        let y = scales.y(tick);
        rule(svg, (LEFT, y), (WIDTH - RIGHT, y));
        text(svg, (LEFT - 6.0, y + 4.0), "end", "", &number(tick));
    }
    for tick in scales.x_ticks() {
        let x = scales.x(tick);
        rule(svg, (x, TOP), (x, HEIGHT - BOTTOM));
        text(svg, (x, HEIGHT - BOTTOM + 18.0), "middle", "", &number(tick));
    }
}

fn draw(svg: &mut String, scales: &Scales, line: &Line, colour: &str) {
    for (x, y) in &line.dots {
        let (x, y) = (scales.x(*x), scales.y(*y));
        let _ =
            writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="1.5" fill="{colour}" fill-opacity="0.3"/>"#);
    }
    let points: Vec<String> =
        line.path.iter().map(|(x, y)| format!("{:.1},{:.1}", scales.x(*x), scales.y(*y))).collect();
    let points = points.join(" ");
    let _ = writeln!(svg, r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
    if let Some((x, y)) = line.path.last() {
        let fill = format!(r#" fill="{colour}""#);
        text(svg, (scales.x(*x) + 6.0, scales.y(*y) + 4.0), "start", &fill, &line.name);
    }
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        r##"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="#dddddd"/>"##,
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, more: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{more}>{words}</text>"#);
}

fn number(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::{Line, Plot};

    fn plot() -> Plot {
        let line = |name: &str, path: Vec<(f64, f64)>| Line { name: name.into(), dots: path.clone(), path };
        Plot {
            title: "ADD <chain>".into(),
            x: "attachments".into(),
            y: "ms".into(),
            lines: vec![
                line("ours", vec![(0.0, 10.0), (100.0, 10.0)]),
                line("reference", vec![(0.0, 100.0), (100.0, 1000.0)]),
            ],
        }
    }

    /// The corners of the polyline number `index`.
    fn corners(svg: &str, index: usize) -> Vec<(f64, f64)> {
        let line = svg.lines().filter(|line| line.starts_with("<polyline")).nth(index).unwrap();
        let points = line.split('"').nth(1).unwrap();
        let corner = |text: &str| {
            let (x, y) = text.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        points.split(' ').map(corner).collect()
    }

    #[test]
    fn what_takes_longer_is_higher_up_and_tenfold_is_the_same_step_everywhere() {
        let svg = plot().svg().unwrap();
        let (ours, reference) = (corners(&svg, 0), corners(&svg, 1));
        assert!((ours[0].1 - ours[1].1).abs() < 0.2, "a flat line: {ours:?}");
        let (first, second) = (ours[0].1 - reference[0].1, reference[0].1 - reference[1].1);
        assert!(first > 10.0 && (first - second).abs() < 0.5, "{first} {second}");
        assert!(ours[0].0 < ours[1].0);
    }

    #[test]
    fn everything_is_on_the_page() {
        let svg = plot().svg().unwrap();
        for index in 0..2 {
            for (x, y) in corners(&svg, index) {
                assert!((0.0..760.0).contains(&x) && (0.0..420.0).contains(&y), "{x} {y}");
            }
        }
        for label in [">ours<", ">reference<", ">ADD &lt;chain><", ">attachments<", ">100<", ">1000<"] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
    }

    #[test]
    fn without_measurements_there_is_no_plot() {
        assert_eq!(Plot { lines: Vec::new(), ..plot() }.svg(), None);
    }
}
