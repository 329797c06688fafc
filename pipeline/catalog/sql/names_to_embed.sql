-- Names that are compared with any other.
SELECT name
FROM name_ids SEMI JOIN (SELECT true_id AS id FROM compared_names UNION SELECT listed_id FROM compared_names) USING (id);
