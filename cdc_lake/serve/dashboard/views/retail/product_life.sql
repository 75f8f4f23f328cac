-- title: The life of a product
-- kind: timeline
-- x: at
-- about: Its prices, the moments when it ran out or came back in a store, and the alerts about it, the newest first.
-- page: Product
-- order: 210
-- width: full
-- needs: products, inventory, stores
-- rows: 500
-- parameter product_id: SELECT product_id AS value, name AS label FROM products ORDER BY name
WITH wanted AS (
    SELECT TRY_CAST($product_id AS INTEGER) AS product_id
), versions AS (
    SELECT h.*, lag(h.price) OVER (ORDER BY h.__from_position) AS price_before
    FROM history.public.products h JOIN wanted USING (product_id)
), shelves AS (
    SELECT i.store_id, i.on_hand, i.__valid_from, i.__from_position,
        lag(i.on_hand) OVER (PARTITION BY i.store_id ORDER BY i.__from_position) AS before
    FROM history.public.inventory i JOIN wanted USING (product_id)
), happened AS (
    SELECT __valid_from AS at, 'listed' AS event, 'at ' || price AS what, NULL AS store_id FROM versions WHERE price_before IS NULL
    UNION ALL
    SELECT __valid_from, 'price', price_before || ' → ' || price, NULL FROM versions WHERE price <> price_before
    UNION ALL
    SELECT __valid_to, 'delisted', 'taken off the list', NULL FROM versions WHERE __valid_to IS NOT NULL
        AND __valid_to = (SELECT max(coalesce(__valid_to, TIMESTAMPTZ 'infinity')) FROM versions)
    UNION ALL
    SELECT __valid_from, 'stock-out', 'the last of ' || before || ' went', store_id FROM shelves WHERE on_hand = 0 AND before > 0
    UNION ALL
    SELECT __valid_from, 'restocked', before || ' → ' || on_hand, store_id FROM shelves WHERE on_hand > before AND on_hand - before > 1
    UNION ALL
    SELECT opened_at, 'alert', title, TRY_CAST(json_extract_string(key, '$.store_id') AS INTEGER)
    FROM lake.alerts JOIN wanted ON json_extract_string(key, '$.product_id') = CAST(wanted.product_id AS VARCHAR)
    WHERE opened_at <= CAST($clock AS TIMESTAMPTZ)
)
SELECT h.at, h.event, h.what, s.name AS store
FROM happened h LEFT JOIN stores s USING (store_id)
WHERE h.at <= CAST($page_time AS TIMESTAMPTZ) OR h.event = 'alert'
ORDER BY h.at DESC, h.event, h.store_id
