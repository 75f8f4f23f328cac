-- The prices of one product, the one whose price changed most often: every version that ever was.
SELECT product_id, __op AS op, price, __source_ts AS changed_at
FROM changes.public.products
WHERE product_id = (
    SELECT product_id
    FROM changes.public.products
    WHERE __op = 'u'
    GROUP BY product_id
    ORDER BY count(*) DESC, product_id
    LIMIT 1
)
ORDER BY __offset
