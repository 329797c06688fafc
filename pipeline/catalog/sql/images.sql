-- Images of all runs. Files of runs that were made before `flat` was told have no such column, and those of runs that
-- reuse labels say of which image.
CREATE VIEW images AS
SELECT * FROM todays_images
UNION ALL BY NAME
SELECT * FROM former_images
UNION ALL BY NAME
SELECT * FROM reusing_images;
