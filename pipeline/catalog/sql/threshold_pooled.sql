-- All names together, in $halves: at each step the precision from there on, and the hit rate of scores like this.
-- Precision is the best that this step or a lower one reaches, so it never falls where scores rise; the lowest step that
-- reaches a target is the same. The cautious precision has half a miss where there is none: a few hits are no certainty.
-- The hit rate is that of the tenth of all occurrences around the step.
CREATE OR REPLACE TEMP TABLE pooled AS
WITH
per_step AS (
    SELECT step, sum(n_listed) AS n_listed, sum(n_hits) AS n_hits
    FROM cells
    WHERE list_contains($halves, half)
    GROUP BY step
),
curve AS (
    SELECT
        step,
        n_listed,
        n_hits,
        sum(n_listed) OVER falling AS n_from_here,
        sum(n_hits) OVER falling / n_from_here AS precision,
        n_from_here - n_listed / 2 AS middle,
        sum(n_listed) OVER () / 20 AS reach
    FROM per_step
    WINDOW falling AS (ORDER BY step DESC)
)
SELECT
    step,
    max(precision) OVER (ORDER BY step) AS precision,
    max(least(precision, 1 - 0.5 / n_from_here)) OVER (ORDER BY step) AS cautious_precision,
    sum(n_hits) OVER around / sum(n_listed) OVER around AS hit_rate
FROM curve
WINDOW around AS (ORDER BY middle RANGE BETWEEN reach PRECEDING AND reach FOLLOWING);
