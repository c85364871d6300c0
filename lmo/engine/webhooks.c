#include "engine/internal.h"
void engine_webhooks_news(struct lmo_engine *e)
{
    (void)e;
}
