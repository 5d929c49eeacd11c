//! The plan: the measurements of each cluster.

use clap::ValueEnum;

use super::ScaleArgs;

/// Of `user-status-change`, as in `presence.audience`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Audience {
    Everyone,
    Watchers,
}

impl Audience {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Watchers => "watchers",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) nodes: usize,
    pub(super) partitions: u32,
    pub(super) audience: Audience,
    /// More than one form a Redis Cluster.
    pub(super) masters: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            count => format!("{count} {noun}s"),
        };
        let partitions = plural(self.partitions as usize, "partition");
        write!(f, "{}, {partitions}", plural(self.nodes, "node"))?;
        match self.audience {
            Audience::Everyone => Ok(()),
            Audience::Watchers => write!(f, ", audience watchers"),
        }
    }
}

/// One cluster, and what is measured on it: idle, then these rates of coming and going, then what one thing costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) shape: Shape,
    /// Comings and goings a second.
    pub(super) churn: Vec<u32>,
    pub(super) units: bool,
}

/// The cells that the options ask for; without any, those whose figures are followed
/// from release to release.
pub(super) fn cells(args: &ScaleArgs) -> Vec<Cell> {
    if args.is_grid() {
        return grid(args);
    }
    let least = |count: usize, quick: usize| if args.quick { count.min(quick) } else { count };
    let cell = |nodes, partitions, audience, churn: &[u32], units| Cell {
        shape: Shape {
            nodes: least(nodes, 2),
            partitions,
            audience,
            masters: args.masters.into(),
        },
        churn: churn
            .iter()
            .map(|&rate| least(rate as usize, 10) as u32)
            .collect(),
        units,
    };
    use Audience::{Everyone, Watchers};
    let all = [
        cell(16, 64, Everyone, &[200], false),
        cell(16, 16, Everyone, &[20], false),
        cell(1, 1, Everyone, &[], true),
        cell(4, 16, Everyone, &[200], false),
        cell(4, 16, Watchers, &[200], true),
        cell(16, 1, Everyone, &[], true),
    ];
    // Every other one has every kind of figure.
    let step = if args.quick { 2 } else { 1 };
    all.into_iter().step_by(step).collect()
}

fn grid(args: &ScaleArgs) -> Vec<Cell> {
    let or = |given: &[u32], usual: &[u32]| {
        if given.is_empty() {
            usual.to_vec()
        } else {
            given.to_vec()
        }
    };
    let (nodes, partitions) = (
        or(&args.node_counts, &[4, 16]),
        or(&args.partitions, &[16, 64]),
    );
    let churn = or(&args.churn, &[20, 200]);
    let mut cells = Vec::new();
    for &nodes in &nodes {
        for &partitions in &partitions {
            cells.push(Cell {
                shape: Shape {
                    nodes: nodes as usize,
                    partitions,
                    audience: args.audience.unwrap_or(Audience::Everyone),
                    masters: args.masters.into(),
                },
                churn: churn.iter().copied().filter(|&rate| rate > 0).collect(),
                units: true,
            });
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        args: ScaleArgs,
    }

    fn cells_of(words: &str) -> Vec<Cell> {
        let words = std::iter::once("scale").chain(words.split_whitespace());
        cells(&Words::parse_from(words).args)
    }

    #[test]
    fn options_make_a_grid() {
        let cells = cells_of("--nodes 2,3 --partitions 1,4 --churn 0,5 --audience watchers");
        let shapes: Vec<String> = cells.iter().map(|cell| cell.shape.to_string()).collect();
        assert_eq!(shapes.len(), 4);
        assert_eq!(shapes[2], "3 nodes, 1 partition, audience watchers");
        assert!(cells.iter().all(|cell| cell.churn == [5] && cell.units));
    }

    #[test]
    fn without_options_the_plan_is_complete() {
        let cells = cells_of("");
        assert!(
            cells
                .iter()
                .any(|cell| cell.shape.to_string() == "16 nodes, 64 partitions")
        );
        assert!(
            cells
                .iter()
                .any(|cell| cell.shape.audience == Audience::Watchers)
        );
        let quick = cells_of("--quick");
        assert!(quick.len() == 3 && quick.iter().all(|cell| cell.shape.nodes <= 2));
    }
}
