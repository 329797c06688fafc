-- Images that are certain to be drawn where each share is multiplied, and the shares of the others.
SELECT count(*) FILTER (share * $factor >= 1) AS n_certain, coalesce(sum(share) FILTER (share * $factor < 1), 0) AS others
FROM draw_shares;
