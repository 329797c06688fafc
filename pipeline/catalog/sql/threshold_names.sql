-- The step from which on each name reaches $target, learned from $halves; $n_steps, which no score reaches, where it
-- does so nowhere.
--
-- A name reaches the target from the lowest step on where its precision, shrunk towards that of all names, does. With n
-- occurrences and h hits from a step on, the shrunk precision is the mean of the posterior of a beta prior of mean p and
-- strength m (threshold_strength.sql): (h + m * p) / (n + m). The prior's mean is the precision of all names from this
-- step on (`pooled`), its odds multiplied by how much oftener than expected the name was right *below* the step. Expected
-- is what all names reach at such scores; the name's own rate below is shrunk to that with the same m. So a name that is
-- always wrong does not get the benefit of the doubt at its topmost score, and no occurrence counts twice.
--
-- It follows that a name without evidence gets the common step exactly, and a name with n far above m one of its own.
-- None lies below both the common step and the name's worst score.
CREATE OR REPLACE TEMP TABLE name_steps AS
WITH
evidence AS (
    SELECT
        name,
        step,
        sum(n_listed)::DOUBLE AS n_listed,
        sum(n_hits)::DOUBLE AS n_hits,
        sum(n_listed) * any_value(hit_rate) AS n_expected
    FROM cells JOIN pooled USING (step)
    WHERE list_contains($halves, half)
    GROUP BY name, step
    UNION ALL
    -- Above a name's best score there is a stretch without occurrences, too.
    SELECT DISTINCT name, $n_steps, 0, 0, 0 FROM cells WHERE list_contains($halves, half)
),
-- One row each stretch of steps, from after `step_below` up to `step`, from which on a name has the same occurrences.
stretches AS (
    SELECT
        name,
        step,
        lag(step) OVER rising AS step_below,
        coalesce(sum(n_listed) OVER below, 0) AS n_listed_below,
        coalesce(sum(n_hits) OVER below, 0) AS n_hits_below,
        sum(n_listed) OVER (PARTITION BY name) - n_listed_below AS n_listed,
        sum(n_hits) OVER (PARTITION BY name) - n_hits_below AS n_hits,
        sum(n_expected) OVER below / n_listed_below AS expected_rate
    FROM evidence
    WINDOW
        rising AS (PARTITION BY name ORDER BY step),
        below AS (PARTITION BY name ORDER BY step ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
-- Below: the name's own hit rate, shrunk to what is expected at these scores, and the odds of the one over the other.
shifted AS (
    SELECT
        *,
        (n_hits_below + $strength * expected_rate) / (n_listed_below + $strength) AS rate,
        CASE
            WHEN expected_rate > 0 AND expected_rate < 1
            THEN rate / (1 - rate) * (1 - expected_rate) / expected_rate
            ELSE 1
        END AS odds_ratio,
        ((n_listed + $strength) * $target - n_hits) / $strength AS prior_needed
    FROM stretches
),
-- Which pooled precision the prior needs, its odds being multiplied by the ratio. Certainty would stay certainty however
-- small the ratio is, hence the cautious one.
needing AS (
    SELECT
        name,
        coalesce(step_below + 1, least(step, $common_step)) AS lowest,
        step AS highest,
        odds_ratio < 1 AS cautious,
        CASE
            WHEN prior_needed <= 0 THEN 0
            ELSE prior_needed / (prior_needed + odds_ratio * (1 - prior_needed)) - 1e-12
        END AS precision_needed
    FROM shifted
    WHERE prior_needed <= 1
),
levels AS (
    SELECT false AS cautious, precision, min(step) AS level_step FROM pooled GROUP BY precision
    UNION ALL
    SELECT true AS cautious, cautious_precision, min(step) FROM pooled GROUP BY cautious_precision
),
reached AS (
    SELECT name, min(greatest(lowest, level_step)) AS step
    FROM needing ASOF JOIN levels ON needing.cautious = levels.cautious AND precision_needed <= precision
    WHERE greatest(lowest, level_step) <= highest
    GROUP BY name
)
SELECT name, coalesce(reached.step, $n_steps) AS step
FROM (SELECT DISTINCT name FROM evidence) LEFT JOIN reached USING (name);
