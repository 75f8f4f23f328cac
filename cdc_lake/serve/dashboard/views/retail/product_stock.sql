-- title: Its stock in all stores
-- kind: step
-- x: moment
-- y: pieces
-- unit: pieces
-- about: Pieces on all shelves together, after each change.
-- page: Product
-- order: 205
-- width: full
-- needs: products, inventory
-- rows: 2000
-- parameter product_id: SELECT product_id AS value, name AS label FROM products ORDER BY name
WITH moves AS (
    SELECT __valid_from AS moment, on_hand - coalesce(lag(on_hand) OVER (PARTITION BY store_id ORDER BY __from_position), 0) AS moved
    FROM history.public.inventory
    WHERE product_id = TRY_CAST($product_id AS INTEGER)
), sums AS (
    SELECT moment, sum(sum(moved)) OVER (ORDER BY moment) AS pieces FROM moves GROUP BY moment
)
SELECT moment, CAST(pieces AS BIGINT) AS pieces FROM (
    SELECT * FROM (SELECT * FROM sums ORDER BY moment DESC LIMIT 1999)
    UNION ALL
    SELECT CAST($page_time AS TIMESTAMPTZ), pieces FROM (SELECT pieces FROM sums ORDER BY moment DESC LIMIT 1)
) ORDER BY moment
