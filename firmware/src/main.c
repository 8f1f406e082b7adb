/* Answers requests about the model that include/edgebnn_model.h names. */
#include "edgebnn_link.h"
#include "edgebnn_model.h"
#include "edgebnn_port.h"

static uint8_t buffer[EDGEBNN_LINK_BUFFER_BYTES(EDGEBNN_INPUT_BYTES, EDGEBNN_NUM_CLASSES)];
static int32_t scores[EDGEBNN_NUM_CLASSES];
static struct edgebnn_link link;

void app_start(void)
{
    edgebnn_link_start(&link, &edgebnn_this_model, buffer, sizeof buffer, scores);
    edgebnn_link_greet(&link);
}

void app_receive(uint8_t byte)
{
    edgebnn_link_receive(&link, byte);
}
