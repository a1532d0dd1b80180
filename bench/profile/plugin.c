// A TCG plugin of QEMU: counts how often each block of guest code runs, and writes the counts to a
// file at every mark, a long nop that no compiler makes (server/src/main.rs executes it).
//
// OUT.1, OUT.2 …: what ran before the first mark, between the first and the second, and so on. One
// line for each block and processor: the processor, executions, address, and the length of each of
// the block's instructions, in bytes.
// For one thread of QEMU (-icount); the API's few functions are declared here, because Debian does
// not package its header.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int,
                                          void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *),
                                            int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
char *qemu_plugin_insn_disas(const struct qemu_plugin_insn *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

#define MARK "55424c4b"
enum { MARK_SIZE = 7, BUCKETS = 1 << 18, MAX_INSNS = 512, CPUS = 16 };

struct block {
  struct block *next;
  uint64_t counts[CPUS];
  uint64_t address;
  size_t length;
  uint8_t sizes[];
};

static struct block *blocks[BUCKETS];
static const char *out = "profile";
static int marks;

// The same code is translated again and again, also up to another instruction: one block each.
static struct block *find_block(uint64_t address, const uint8_t *sizes, size_t length) {
  struct block **bucket = &blocks[(address ^ address >> 18 ^ length << 10) % BUCKETS];
  for (struct block *block = *bucket; block; block = block->next)
    if (block->address == address && block->length == length &&
        memcmp(block->sizes, sizes, length) == 0)
      return block;
  struct block *block = calloc(1, sizeof *block + length);
  if (!block) abort();
  block->address = address;
  block->length = length;
  memcpy(block->sizes, sizes, length);
  block->next = *bucket;
  return *bucket = block;
}

static void executed(unsigned cpu, void *block) {
  ((struct block *)block)->counts[cpu % CPUS]++;
}

static void write_block(FILE *file, struct block *block, unsigned cpu) {
  if (block->counts[cpu] == 0) return;
  fprintf(file, "%u %llu %llx", cpu, (unsigned long long)block->counts[cpu],
          (unsigned long long)block->address);
  for (size_t k = 0; k < block->length; k++) fprintf(file, " %u", block->sizes[k]);
  fputc('\n', file);
  block->counts[cpu] = 0;
}

static void write_counts(FILE *file) {
  for (size_t i = 0; i < BUCKETS; i++)
    for (struct block *block = blocks[i]; block; block = block->next)
      for (unsigned cpu = 0; cpu < CPUS; cpu++) write_block(file, block, cpu);
}

static void marked(unsigned cpu, void *data) {
  (void)cpu, (void)data;
  char path[4096];
  snprintf(path, sizeof path, "%s.%d", out, ++marks);
  FILE *file = fopen(path, "w");
  if (!file) {
    perror(path);
    return;
  }
  write_counts(file);
  if (fclose(file) != 0) perror(path);
}

static int is_mark(const struct qemu_plugin_insn *insn) {
  if (qemu_plugin_insn_size(insn) != MARK_SIZE) return 0;
  char *text = qemu_plugin_insn_disas(insn);
  int found = text && strstr(text, "nop") && strstr(text, MARK);
  free(text);
  return found;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  (void)id;
  uint8_t sizes[MAX_INSNS];
  size_t length = qemu_plugin_tb_n_insns(tb);
  if (length > MAX_INSNS) length = MAX_INSNS;
  for (size_t i = 0; i < length; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    sizes[i] = (uint8_t)qemu_plugin_insn_size(insn);
    if (is_mark(insn)) qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, NULL);
  }
  struct block *block = find_block(qemu_plugin_tb_vaddr(tb), sizes, length);
  qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGISTERS, block);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; i++)
    if (strncmp(argv[i], "out=", 4) == 0) out = strdup(argv[i] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
