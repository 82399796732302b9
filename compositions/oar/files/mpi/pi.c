/* Pi by all ranks together, checked: mpirun pi
 *
 * Prints one line, `pi 3.141592653590 by 4 ranks on 2 hosts: node1 node2`, and fails if the value
 * is wrong. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INTERVALS = 1000000 };

static double part_of_pi(int rank, int ranks)
{
    const double width = 1.0 / INTERVALS;
    double sum = 0.0;
    for (int i = rank; i < INTERVALS; i += ranks) {
        const double x = width * (i + 0.5);
        sum += 4.0 / (1.0 + x * x);
    }
    return width * sum;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void report(double pi, int ranks, char (*hosts)[MPI_MAX_PROCESSOR_NAME])
{
    int different = 0;
    qsort(hosts, ranks, sizeof *hosts, by_name);
    for (int i = 0; i < ranks; i++)
        different += i == 0 || strcmp(hosts[i], hosts[i - 1]) != 0;
    printf("pi %.12f by %d ranks on %d hosts:", pi, ranks, different);
    for (int i = 0; i < ranks; i++)
        if (i == 0 || strcmp(hosts[i], hosts[i - 1]) != 0)
            printf(" %s", hosts[i]);
    putchar('\n');
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char host[MPI_MAX_PROCESSOR_NAME] = "";
    char (*hosts)[MPI_MAX_PROCESSOR_NAME];
    int rank, ranks, length, wrong = 0;
    double part, pi = 0.0;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Get_processor_name(host, &length);

    part = part_of_pi(rank, ranks);
    MPI_Reduce(&part, &pi, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
    hosts = calloc(ranks, sizeof *hosts);
    MPI_Gather(host, sizeof host, MPI_CHAR, hosts, sizeof host, MPI_CHAR, 0, MPI_COMM_WORLD);

    if (rank == 0) {
        report(pi, ranks, hosts);
        wrong = fabs(pi - acos(-1.0)) > 1e-9;
    }
    MPI_Bcast(&wrong, 1, MPI_INT, 0, MPI_COMM_WORLD);
    free(hosts);
    MPI_Finalize();
    return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
